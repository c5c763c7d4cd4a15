//! Sets up what the process says of itself: its log, and its reports of errors.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    config::{Config, Env, LogFormat},
    errors::{self, scrub::Scrub},
    logs::{
        self,
        level::Directives,
        line::Form,
        rotation::{Keep, When},
    },
    metrics::Registry,
};

/// The label of what the process's threads count together.
const LABEL: &str = "process";

/// Starts logs and reports. A second node in one process (a test) keeps the first one's.
///
/// Errors: the log file cannot be opened or is another process's, or a thread cannot be had.
pub(super) fn start(config: &Config, registry: &Registry) -> io::Result<()> {
    if logs::installed().is_some() {
        return Ok(());
    }
    let counters = registry.register(LABEL);
    let (lines, logs) = logs::start(log_settings(config)?, counters.clone())?;
    let reports = report_settings(config).map(|settings| errors::start(settings, counters)).transpose()?;
    let (layer, reports) = reports.unzip();
    if tracing_subscriber::registry().with(lines).with(layer).try_init().is_ok() {
        logs.install();
        reports.into_iter().for_each(errors::Reports::install);
        errors::panics::log_them();
    }
    Ok(())
}

/// Says why there can be no log.
pub(super) fn cannot_log(error: &io::Error) {
    let _ = writeln!(io::stderr(), "ws-cluster: failed to start: {error}");
}

/// Takes over what a reload may change: what is logged, and what no report may hold.
pub(super) fn reload(config: &Config) {
    if let Some(reports) = errors::installed() {
        reports.learn(secrets(config).iter().map(String::as_str));
    }
    let (Some(logs), Some(directives)) = (logs::installed(), directives(config)) else { return };
    let now = directives.to_string();
    let before = logs.control().set(directives).to_string();
    if before != now {
        tracing::warn!(before, now, "the log level was changed by a reload");
    }
}

fn directives(config: &Config) -> Option<Directives> {
    let (level, targets) = (config.log_level, config.log_targets.as_deref());
    let text = targets.map_or_else(|| level.to_string(), |targets| format!("{level},{targets}"));
    Directives::parse(&text).ok()
}

fn log_settings(config: &Config) -> io::Result<logs::Settings> {
    let limits = &config.limits.logs;
    let file = config.log_file.as_ref().map(|path| logs::FileSettings {
        path: PathBuf::from(path),
        when: When { bytes: limits.log_rotate_bytes, daily: config.log_rotate_daily },
        keep: Keep { files: limits.log_keep_files, bytes: limits.log_keep_bytes, age: limits.log_keep_age },
        compress: config.log_compress,
    });
    Ok(logs::Settings {
        directives: directives(config).ok_or_else(|| io::Error::other("the log level is none"))?,
        form: match config.log_format {
            LogFormat::Json => Form::Json { node: config.node },
            LogFormat::Human => Form::Human { target: config.env == Env::Dev },
        },
        buffer_bytes_max: limits.log_buffer_bytes_max,
        file,
    })
}

fn report_settings(config: &Config) -> Option<errors::Settings> {
    Some(errors::Settings {
        dsn: config.sentry_dsn.dsn()?.clone(),
        node: config.node,
        environment: config.env.to_string(),
        per_minute: config.limits.logs.sentry_events_per_minute,
        scrub: Scrub::new(secrets(config).iter().map(String::as_str)),
    })
}

/// Everything that this node keeps to itself.
fn secrets(config: &Config) -> Vec<String> {
    let of_projects = config.projects.iter().flat_map(|project| project.secrets.iter());
    let all = of_projects.chain(config.operator_token.iter());
    let texts = all.filter_map(|secret| std::str::from_utf8(secret.expose()).ok());
    texts.chain(config.redis_url.secrets()).map(str::to_owned).collect()
}
