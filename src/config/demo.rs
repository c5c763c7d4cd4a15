//! What a developer may paste: a connect and a push of the demo project.

use std::{net::SocketAddr, time::Duration};

use super::{
    Config, DEMO_PID, DEMO_SECRET,
    sign::{SignConnect, SignPush, reachable},
    values::Env,
};
use crate::model::{Pid, project::Secret};

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
    let project = config.projects.get(DEMO_PID).filter(|_| config.env == Env::Dev)?;
    let secret = project.secrets.iter().find(|secret| secret.expose() == DEMO_SECRET.as_bytes())?;
    Some((project.pid.clone(), secret.clone()))
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
