//! The reference of all keys, `docs/config.md`, from the table that the program itself reads.

use super::{
    Config, DEMO_PID, DEMO_SECRET,
    error::environment_name,
    keys::{self, Key, Section},
    value::Kind,
    values::Env,
};

const HEAD: &str = "\
# Configuration

This page is printed by `ws-cluster config-doc`; a test compares it with the program.

A setting is given as a flag, an environment variable or a key of the file that `--config` (or `WS_CONFIG`) names. Flags
win over the environment, the environment over the file, the file over the defaults. Dashes and underscores mean the
same in flag names: `--ws_port 8812`, `--ws-port=8812`. `ws-cluster check` prints what is in effect and where each value
came from, secrets starred.

An unknown flag or file key, a bad value and what cannot work together are refused at the start with exit status 64 and
one line that names key, value and source:

```
ws-cluster: drain = \"1s\" (ws.toml line 3): is less than close_timeout = 5s (default): a drain waits for its closes
```

Unknown variables that begin with `WS_` are passed over, because Kubernetes sets such for its services. For keys that begin
with `ws_` the second `WS_` may be left out (`WS_PORT`).

Durations are seconds (`10`, `0.5`) or a number with `ms`, `s`, `m`, `h` or `d` (`\"500ms\"`, `\"5m\"`). Sizes are bytes (`65536`)
or a whole number with `KiB`, `MiB` or `GiB` (`\"64KiB\"`).

`SIGHUP`, or `POST /admin/reload` on the pprof listener, makes a running node read all of it again: the file, the secrets that it names,
and the flags and the environment that the process was started with. What is refused changes nothing and is told in one line of the log; what is good is in
effect without a connection being dropped. The column *reload* says for each key what becomes of a new value: `at once`, for
`new connections` only, or not before a `restart` (a warning names it, and the rest is applied). `[[projects]]` and `[[tags]]` are in effect at once.
";

const FILE: &str = "\
## The file

TOML. Node, listeners, queue and logs stand at its top, the limits under `[limits]`:

```toml
node = 200
queue = \"redis\"
redis_url = \"redis://127.0.0.1:6379/0\"

[limits]
connections_per_address = 64
handshake_timeout = \"10s\"

[[projects]]
pid = \"502\"
secrets = [\"current\", \"previous\"]
jwt = { algorithm = \"HS256\" }
requests = \"one\"
origins = [\"https://app.example.com\"]

[[tags]]
match = \"kline.*\"
history = { count = 128, age_s = 600, bytes = 262144 }
dedup = true
access = \"public\"
```

### `[[projects]]`

Each project is a tenant; nothing crosses projects. After a reload new projects, secrets and origins count for the next connection and the next call; the
connections of a project that is gone are closed (4401), all others stay.

| key | default | what it is |
|---|---|---|
| `pid` | must be given | The project's name: 1 to 128 bytes without commas or control characters. |
| `secrets` | must be given, here or below | One secret, or two while they are rotated: either is accepted. In prod at least 16 bytes each. |
| `secret_files` | `[]` | Files with a secret each; a line feed at the end is not part of it. |
| `secret_env` | `[]` | Environment variables with a secret each. |
| `jwt` | none | `{ algorithm, key }`: tokens are accepted in place of `sign`. HS256 uses the secrets and takes no key; ES256 and EdDSA need \
the public `key`, as PEM (`-----BEGIN PUBLIC KEY-----`) or base64. |
| `requests` | `\"one\"` | `\"one\"`: a user's request goes to the back-end with the least pending; `\"all\"`: to all of them. |
| `origins` | `[]` | Browser origins that may connect: `\"https://app.example.com\"`. `\"*\"`: any. None: any in dev and test, the node's own host in prod. |
| `name` | none | For whoever reads the file. |

### `[[tags]]`

The first rule that matches a tag counts, for every project; a rule that an earlier one hides is refused. A tag without a rule has
the defaults. After a reload the rules hold for tags and subscriptions that are there already: what is queued stays as it is, a shorter history is cut, and who
may not follow a tag any more follows it no longer and is told so (`denied`), unless a back-end has subscribed it.

| key | default | allowed | what it is | too small | too large |
|---|---|---|---|---|---|
| `match` | must be given | | A tag, or a prefix of tags with `*` at its end. | | |
| `class` | `\"lossless\"` | `\"lossless\"`, `\"latest\"` | How a connection that falls behind is served: every publication or a close (4008); or the \
current value, with `merged`, when its socket takes bytes again. | | |
| `history.count` | `128` | 0 to 100000 | Publications that are kept for those who resume; the last value always is. | Resuming meets a gap. | More memory. |
| `history.age_s` | `600` | 0 to 7d | Their age. | Resuming meets a gap. | More memory. |
| `history.bytes` | `262144` | 0 to 1GiB | Their payloads together. | Resuming meets a gap. | More memory. |
| `dedup` | `false` | | A publication that equals the last value is not delivered again. | | |
| `access` | `\"public\"` | `\"public\"`, `\"private\"`, `\"own\"` | Who may subscribe: every user; only whom a back-end subscribes; the user whose uid is \
what follows the prefix. | | |
| `max_hz` | `0` | 0 to 1000 | Updates a second at most, always ending on the newest; 0 is every one. | Values are old. | No bound. |
| `deflate` | `true` | | Whether publications are compressed for connections that have agreed on permessage-deflate. Off where it does not \
pay: payloads that are compressed already, or noise. | | |
";

/// The whole page.
pub fn markdown() -> String {
    let mut page = HEAD.to_owned();
    page.push_str(&format!(
        "\nThe demo project of dev and test is pid `{DEMO_PID}` with the secret `{DEMO_SECRET}`. Everyone knows it.\n"
    ));
    let (dev, prod) = (Config::defaults(Env::Dev), Config::defaults(Env::Prod));
    for section in keys::sections() {
        page.push_str(&format!("\n## {}\n\n", section.title));
        page.push_str(&table(section, &dev, &prod));
    }
    page.push('\n');
    page.push_str(FILE);
    page
}

fn table(section: &Section, dev: &Config, prod: &Config) -> String {
    let extremes = section.keys.iter().any(|key| !key.too_small.is_empty());
    let mut table = String::from("| key | default | allowed | reload | what it is |");
    table.push_str(if extremes { " too small | too large |\n" } else { "\n" });
    table.push_str(if extremes { "|---|---|---|---|---|---|---|\n" } else { "|---|---|---|---|---|\n" });
    for key in section.keys {
        let (name, what, reload) = (key.name, key.what, key.applies().words());
        table.push_str(&format!("| `{name}` | {} | {} | {reload} | {what} |", default(key, dev, prod), allowed(key)));
        if extremes {
            table.push_str(&format!(" {} | {} |", key.too_small, key.too_large));
        }
        table.push('\n');
    }
    table
}

fn default(key: &Key, dev: &Config, prod: &Config) -> String {
    let show = |config| key.show(config).map_or_else(|| "none".to_owned(), |value| format!("`{value}`"));
    // What env itself is by default does not depend on env.
    if key.name == "env" || show(dev) == show(prod) {
        return show(dev);
    }
    format!("{}; in prod {}", show(dev), show(prod))
}

fn allowed(key: &Key) -> String {
    match key.kind {
        Kind::Number(bounds) => format!("{}{}", bounds.range(), bounds.unit.noun()),
        Kind::Text(form, _) | Kind::Word(form) => form.to_owned(),
    }
}

/// The help of a flag: what it is, its environment variable and its default.
pub(super) fn help(key: &Key, defaults: &Config) -> String {
    let default = key.show(defaults).map_or(String::new(), |value| format!("; default {}", value.trim_matches('"')));
    format!("{} [{}{default}]", key.what, environment_name(key.name))
}
