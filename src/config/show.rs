//! The effective configuration as a file that could be read again, with where each value came from; secrets starred.

use super::{
    Config,
    error::Source,
    keys::{self, Section},
    sources::Origins,
};
use crate::model::{
    Project,
    project::{JwtKey, RequestRouting},
    tag_rule::{Access, DeliveryClass, TagRule},
};

/// The configuration as TOML.
pub fn effective(config: &Config, origins: &Origins) -> String {
    let mut out = String::new();
    for section in keys::sections().filter(|section| !section.limits) {
        keys_of(&mut out, section, config, origins);
    }
    out.push_str("[limits]\n");
    for section in keys::sections().filter(|section| section.limits) {
        keys_of(&mut out, section, config, origins);
    }
    let mut projects: Vec<&Project> = config.projects.iter().collect();
    projects.sort_by_key(|project| &project.pid);
    projects.into_iter().for_each(|project| self::project(&mut out, project));
    config.tags.iter().for_each(|rule| tag_rule(&mut out, rule));
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn keys_of(out: &mut String, section: &Section, config: &Config, origins: &Origins) {
    out.push_str(&format!("# {}\n", section.title));
    for key in section.keys {
        let source = origins.get(key.name).unwrap_or(&Source::Default).of(key.name);
        out.push_str(&match key.show(config) {
            Some(value) => format!("{} = {value} # {source}\n", key.name),
            None => format!("# {} is not set\n", key.name),
        });
    }
    out.push('\n');
}

fn project(out: &mut String, project: &Project) {
    let stars = vec!["\"***\""; project.secrets.len()].join(", ");
    out.push_str(&format!("[[projects]]\npid = {}\nsecrets = [{stars}]\n", quoted(&project.pid)));
    out.push_str(match project.jwt {
        None => "",
        Some(JwtKey::Hs256) => "jwt = { algorithm = \"HS256\" }\n",
        Some(JwtKey::Es256(_)) => "jwt = { algorithm = \"ES256\", key = \"***\" }\n",
        Some(JwtKey::EdDsa(_)) => "jwt = { algorithm = \"EdDSA\", key = \"***\" }\n",
    });
    out.push_str(match project.requests {
        RequestRouting::One => "requests = \"one\"\n",
        RequestRouting::All => "requests = \"all\"\n",
    });
    let origins: Vec<_> = project.origins.iter().map(|origin| quoted(origin)).collect();
    out.push_str(&format!("origins = [{}]\n\n", origins.join(", ")));
}

fn tag_rule(out: &mut String, rule: &TagRule) {
    let class = match rule.class {
        DeliveryClass::Lossless => "lossless",
        DeliveryClass::Latest => "latest",
    };
    let access = match rule.access {
        Access::Public => "public",
        Access::Private => "private",
        Access::Own => "own",
    };
    let age = rule.history.age_max.as_secs_f64();
    let history = format!("count = {}, age_s = {age}, bytes = {}", rule.history.count_max, rule.history.bytes_max);
    out.push_str(&format!(
        "[[tags]]\nmatch = {}\nclass = \"{class}\"\nhistory = {{ {history} }}\n",
        quoted(&rule.pattern)
    ));
    out.push_str(&format!("dedup = {}\naccess = \"{access}\"\nmax_hz = {}\n\n", rule.dedup, rule.hz_max));
}

/// A basic string of TOML. Names have no control characters, so that these two are all there is to escape.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
