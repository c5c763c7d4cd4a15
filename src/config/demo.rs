//! The demo project: what a developer may paste, whether there is a demo page, and the rules of its tags.

use std::{net::SocketAddr, time::Duration};

use super::{
    Config, DEMO_PID, DEMO_SECRET,
    sign::{SignConnect, SignPush, reachable},
    values::{Env, Port},
};
use crate::{
    limits::DEMO_BARS_MAX,
    model::{
        Pid, Project, TagRules,
        project::Secret,
        tag_rule::{DeliveryClass, History, TagRule},
    },
};

/// The tag of the demo's current bar.
pub const DEMO_TAG: &str = "kline.DEMO";
/// The tag whose history is the demo's closed bars.
pub const DEMO_BARS_TAG: &str = "kline.DEMO.bars";

impl Config {
    /// The demo project, unless the file has put another in its place: its secret is not ours to show or to sign with.
    pub fn demo_project(&self) -> Option<&Project> {
        let is_demo = |secret: &[u8]| secret == DEMO_SECRET.as_bytes();
        let project = self.projects.get(DEMO_PID)?;
        project.secrets.iter().any(|secret| is_demo(secret.expose())).then_some(project)
    }

    /// Whether there is a demo page: it is wanted, it has its project, and a browser reaches both listeners.
    pub fn has_demo(&self) -> bool {
        let listens = |port: Port| port != Port::Off;
        let reachable = listens(self.ws_port) && listens(self.http_port);
        self.demo && self.env != Env::Prod && reachable && self.demo_project().is_some()
    }
}

/// Puts the demo's tags behind the rules of the file, which may have ideas of its own about them.
pub(super) fn add_rules(config: &mut Config) {
    if !config.has_demo() {
        return;
    }
    let rule = |tag: &str| TagRule { pattern: tag.into(), class: DeliveryClass::Latest, ..TagRule::default() };
    let bars = History { count_max: DEMO_BARS_MAX, age_max: Duration::from_secs(3600), bytes_max: 256 << 10 };
    let demo = [rule(DEMO_TAG), TagRule { history: bars, ..rule(DEMO_BARS_TAG) }];
    config.tags = TagRules::new(config.tags.iter().cloned().chain(demo).collect());
}

/// The demo page's address, once the HTTP listener is bound.
pub fn page(config: &Config, http: Option<SocketAddr>) -> Option<String> {
    let address = http.filter(|_| config.has_demo())?;
    Some(format!("http://{}/demo", SocketAddr::new(reachable(address.ip()), address.port())))
}

/// The lines to print once the listeners are bound, signed at `now` (since the Unix epoch). Nothing outside of dev, and
/// nothing when the file has put another project in the demo's place: its secret is not ours to show.
pub fn try_it(config: &Config, ws: Option<SocketAddr>, http: Option<SocketAddr>, now: Duration) -> Option<String> {
    credentials(config)?;
    let local = |address: SocketAddr| SocketAddr::new(reachable(address.ip()), address.port()).to_string();
    let connect = ws.and_then(|address| connect(local(address)).url(config, now).ok());
    let push = http.and_then(|address| push(local(address)).command(config, now).ok());
    let mut text =
        format!("demo project {DEMO_PID}, secret {DEMO_SECRET} (everyone knows it: for this machine only)\n");
    for (what, line) in [("connect:", connect), ("push to it:", push)] {
        if let Some(line) = line {
            text.push_str(&format!("{what}\n  {line}\n"));
        }
    }
    Some(text)
}

/// The demo project and its secret, where they may be shown: in dev, unless the file has put another project in its place.
pub fn credentials(config: &Config) -> Option<(Pid, Secret)> {
    let project = config.demo_project().filter(|_| config.env == Env::Dev)?;
    Some((project.pid.clone(), Secret::new(DEMO_SECRET)))
}

fn connect(addr: String) -> SignConnect {
    SignConnect {
        uid: "demo".to_owned(),
        pid: DEMO_PID.to_owned(),
        kind: "1".to_owned(),
        ttl: None,
        device: None,
        tags: Some("demo".to_owned()),
        addr: Some(addr),
    }
}

fn push(addr: String) -> SignPush {
    SignPush {
        data: "{\"hello\":1}".to_owned(),
        pid: DEMO_PID.to_owned(),
        uids: None,
        cids: None,
        tags: Some("demo".to_owned()),
        devices: None,
        all: false,
        keep: false,
        affair_id: None,
        idempotency_key: None,
        ttl: None,
        addr: Some(addr),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Projects,
        protocol::{
            query::Params,
            sign::{verify_call, verify_connect},
        },
    };

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn address(text: &str) -> Option<SocketAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn what_is_printed_to_paste_is_accepted() {
        let config = Config::defaults(Env::Dev);
        let text = try_it(&config, address("0.0.0.0:8812"), address("[::]:8912"), NOW).expect("something to try");
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].contains(DEMO_SECRET));

        let url = lines[2].strip_prefix("  ws://127.0.0.1:8812/ws/connect?").expect("a connect URL");
        let horizon = config.limits.opening.sign_horizon_connect;
        let params = Params::parse(url).expect("a query");
        let identity = verify_connect(&config.projects, &params, NOW, horizon).expect("good credentials");
        assert_eq!((&*identity.uid, params.get("tags")), ("demo", Some("demo")));

        let push = lines[4].strip_prefix("  curl -X POST 'http://[::1]:8912/ws/push?").expect("a command");
        let params = Params::parse(push.strip_suffix('\'').expect("the end")).expect("a query");
        let horizon = config.limits.opening.sign_horizon_push;
        let pid = verify_call(&config.projects, &params, None, NOW, horizon).expect("good credentials");
        assert_eq!((&*pid, params.get("data")), (DEMO_PID, Some("{\"hello\":1}")));
    }

    #[test]
    fn the_page_is_there_in_dev_or_where_it_is_asked_for_but_never_without_its_project() {
        let http = address("0.0.0.0:8912");
        let mut config = Config::defaults(Env::Dev);
        assert_eq!(page(&config, http).as_deref(), Some("http://127.0.0.1:8912/demo"));
        add_rules(&mut config);
        assert_eq!(config.tags.find(DEMO_TAG).class, DeliveryClass::Latest);
        assert_eq!(config.tags.find(DEMO_BARS_TAG).history.count_max, DEMO_BARS_MAX);
        config.ws_port = Port::Off;
        assert_eq!(page(&config, http), None);

        let mut config = Config::defaults(Env::Test);
        assert_eq!(page(&config, http), None);
        add_rules(&mut config);
        assert_eq!(config.tags.iter().count(), 0);
        config.demo = true;
        assert!(page(&config, http).is_some());
        config.projects = Projects::default();
        assert_eq!(page(&config, http), None);
    }

    #[test]
    fn only_dev_with_its_own_demo_project_prints_a_secret() {
        let mut config = Config::defaults(Env::Test);
        assert_eq!(try_it(&config, address("127.0.0.1:1"), None, NOW), None);
        config.env = Env::Dev;
        assert!(try_it(&config, address("127.0.0.1:1"), None, NOW).is_some());
        let mut own = config.projects.get(DEMO_PID).expect("the demo project").clone();
        own.secrets = vec![crate::model::project::Secret::new("hidden")];
        config.projects = Projects::new([own]);
        assert_eq!(try_it(&config, address("127.0.0.1:1"), None, NOW), None);
    }
}
