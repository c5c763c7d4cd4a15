//! From a configuration to a running node.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
};

use tokio::{runtime, task::LocalSet};

use crate::{
    admin,
    broker::{
        Broker, Durability,
        log::{Log, LogSettings},
        memory::Memory,
        redis::{Redis, RedisSettings, TlsFiles},
    },
    config::{self, Config, Group, QueueKind, Sources},
    exchange::{Exchange, ExchangeSettings},
    health::Health,
    http::api::PageOrigin,
    hub::HubSettings,
    inbox::Mailbox,
    limits::TRACE_FLUSH_TIMEOUT,
    metrics::{Counters, Registry},
    model::{Boot, FromCore, ToCore},
    router::Router,
    shard::{Admission, AuthReject, Driver, GatewaySettings},
    traces::{Stamper, TraceSettings, Traces},
};

use super::{
    api,
    api::ApiParts,
    banner,
    canary::Canary,
    cores,
    cores::CoreParts,
    demo,
    drain::{self, Cause},
    exchange_loop::{ExchangeLoop, NewRules},
    listen, machine,
    memory::{self, Thresholds, Watch},
    orders::{ORDERS_MAX, Order},
    reload::{Parts, Reloader, exchange_rules},
    stop,
};

/// One bound address and what it serves.
pub(super) struct Bound {
    pub address: SocketAddr,
    pub groups: Vec<Group>,
    /// One per core for public groups, one alone for operators'.
    pub sockets: Vec<TcpListener>,
    /// Public groups' and operators' together: the way from those to these.
    pub shared: Option<api::SharedListener>,
}

impl Bound {
    fn public_groups(&self) -> impl Iterator<Item = Group> {
        self.groups.iter().copied().filter(|group| !group.is_for_operators())
    }
}

/// What the node's parts share.
struct Shared {
    config: Config,
    boot: Boot,
    cores: u8,
    health: Arc<Health>,
    registry: Registry,
    traces: Traces,
    from_cores: Arc<Mailbox<FromCore>>,
    to_cores: Vec<Arc<Mailbox<ToCore>>>,
    /// Of the node's own threads to each core.
    orders: Vec<Arc<Mailbox<Order>>>,
    /// Of a reload to the exchange.
    new_rules: Arc<Mailbox<NewRules>>,
    admission: Admission,
    /// What the node counts as a whole.
    counters: Arc<Counters>,
    reloader: Arc<Reloader>,
    router: Router,
    /// An operator's order to drain.
    drain: admin::Order,
}

/// Starts a node and runs it to its end.
pub(super) fn start(config: Config, sources: Sources, registry: Registry) -> io::Result<()> {
    let cores = if config.cores == 0 { machine::cores() } else { config.cores };
    let files_max = machine::raise_file_limit();
    let mut bound = bind(&config, cores)?;
    let queue = &config.limits.queue;
    let traces = start_traces(&config, &registry)?;
    let orders: Vec<_> = (0..cores).map(|_| Mailbox::new(ORDERS_MAX)).collect();
    let (new_rules, counters) = (Mailbox::new(ORDERS_MAX), registry.register("node"));
    let admission = Admission::new(config.limits.opening.clone(), files_max, config.trusted_proxies.clone());
    let memory = Thresholds::new(config.limits.memory.clone());
    Watch::start(&memory, admission.clone(), orders.clone(), counters.clone())?;
    let parts = Parts {
        cores: orders.clone(),
        exchange: new_rules.clone(),
        admission: admission.clone(),
        memory,
        counters: counters.clone(),
    };
    let shared = Shared {
        reloader: Reloader::new(sources, config.clone(), parts),
        orders,
        new_rules,
        admission,
        counters,
        boot: random_boot(),
        cores,
        health: Health::new(config.node),
        registry,
        traces,
        from_cores: Mailbox::new(queue.exchange_inbox_max),
        to_cores: (0..cores).map(|_| Mailbox::new(queue.inbox_messages_max)).collect(),
        router: Router::new(config.node),
        drain: admin::Order::default(),
        config,
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anything listens: who reaches the node may send it a signal.
    let signals = {
        let _inside = runtime.enter();
        stop::Signals::new(shared.reloader.clone())?
    };
    let operators = start_operators(&shared, &mut bound)?;
    start_cores(&shared, &mut bound)?;
    banner::addresses(&bound);
    demo::start(&shared.config, banner::address_of(&bound, Group::Http), &shared.health, &shared.registry)?;
    let ended = LocalSet::new().block_on(&runtime, serve(&shared, &bound, signals));
    operators.stop();
    shared.traces.stop(TRACE_FLUSH_TIMEOUT);
    ended
}

fn start_traces(config: &Config, registry: &Registry) -> io::Result<Traces> {
    let Some(endpoint) = config.otlp_endpoint.clone() else { return Ok(Traces::default()) };
    let settings = TraceSettings { endpoint, one_in: config.trace_one_in, node: config.node };
    Traces::start(settings, registry.register("traces")).map_err(io::Error::other)
}

/// Joins the queue, runs the exchange, and stops when it is told to.
async fn serve(shared: &Shared, bound: &[Bound], mut signals: stop::Signals) -> io::Result<()> {
    let config = &shared.config;
    let counters = shared.counters.clone();
    let settings = LogSettings {
        node: config.node,
        boot: shared.boot,
        seed: random(),
        shards: config.shards,
        lease_text: banner::public_address(config, bound),
        durability: durability(config),
        limits: config.limits.queue.clone(),
    };
    let (log, events) = Log::start(broker(config)?, settings, counters.clone());
    let settings = ExchangeSettings {
        node: config.node,
        boot: shared.boot,
        cores: shared.cores,
        shards: config.shards,
        // What the embedded queue holds ends with the node.
        retains: config.queue == QueueKind::Redis,
        public_addr: banner::public_address(config, bound),
        rules: exchange_rules(config),
    };
    let exchange = Exchange::new(settings, counters.clone());
    let log = (Rc::new(log), events);
    let mailboxes = (shared.from_cores.clone(), shared.to_cores.clone());
    let stamper = Stamper::new(shared.traces.clone(), config.stage_latency, counters.clone());
    let canary = Canary::new(config.node, shared.boot, config.shards, config.limits.queue.canary_timeout);
    let health = shared.health.clone();
    let routed = (canary, shared.router.clone());
    let exchange = ExchangeLoop::new(exchange, log, mailboxes, health, stamper, counters, routed);
    let mut exchange = exchange.beside(shared.new_rules.clone(), shared.admission.clone());
    let cause = tokio::select! {
        why = exchange.run(|| banner::ready(config, bound)) => return Err(io::Error::other(why)),
        () = signals.stop() => Cause::Signal,
        () = shared.drain.given() => Cause::Order,
    };
    drain::drain(exchange, &shared.registry, &shared.reloader.life(), signals, cause).await;
    Ok(())
}

fn broker(config: &Config) -> io::Result<Arc<dyn Broker>> {
    let log_bytes_max = config.limits.queue.log_bytes_max;
    Ok(match config.queue {
        QueueKind::Memory => Arc::new(Memory::new(log_bytes_max)),
        QueueKind::Redis => {
            let (prefix, durability) = (config.key_prefix.clone(), durability(config));
            let settings = RedisSettings { prefix, log_bytes_max, durability };
            let files = TlsFiles {
                roots: config.redis_ca_file.as_ref().map(Into::into),
                identity: config
                    .redis_cert_file
                    .as_ref()
                    .map(Into::into)
                    .zip(config.redis_key_file.as_ref().map(Into::into)),
            };
            Arc::new(Redis::start(config.redis_url.expose(), &files, settings).map_err(io::Error::other)?)
        }
        #[cfg(feature = "plain-pubsub")]
        QueueKind::PubSub => {
            let queue = crate::broker::pubsub::PlainPubSub::start(config.redis_url.expose(), &config.key_prefix);
            Arc::new(queue.map_err(io::Error::other)?)
        }
    })
}

fn durability(config: &Config) -> Durability {
    match config.ack {
        config::Ack::Log => Durability::Log,
        config::Ack::Replica => Durability::Replicas(config.ack_replicas),
        config::Ack::Disk => Durability::Disk,
    }
}

fn bind(config: &Config, cores: u8) -> io::Result<Vec<Bound>> {
    let bind = |listener: config::Listener| {
        let operators: Vec<admin::Group> = listener.groups.iter().copied().filter_map(operators_group).collect();
        let is_public = operators.len() < listener.groups.len();
        let copies = if is_public { usize::from(cores) } else { 1 };
        let (address, sockets) = listen::bind(&listener.host.to_string(), listener.port, copies)?;
        let connections_max = config.limits.http.connections_max;
        let shared = (is_public && !operators.is_empty()).then(|| api::SharedListener::new(operators, connections_max));
        Ok(Bound { address, groups: listener.groups, sockets, shared })
    };
    config.listeners().into_iter().map(bind).collect()
}

fn operators_group(group: Group) -> Option<admin::Group> {
    match group {
        Group::WebSocket | Group::Http => None,
        Group::Metrics => Some(admin::Group::Metrics),
        Group::Pprof => Some(admin::Group::Pprof),
        Group::Swagger => Some(admin::Group::Swagger),
    }
}

fn start_operators(shared: &Shared, bound: &mut [Bound]) -> io::Result<admin::Running> {
    let mut listeners = Vec::new();
    let pages = admin::Pages {
        api: banner::address_of(bound, Group::Http),
        exp: config::sign::PUSH_TTL.min(shared.config.limits.opening.sign_horizon_push),
        demo: config::demo::credentials(&shared.config),
    };
    for bound in bound {
        listeners.extend(bound.shared.as_ref().map(api::SharedListener::listener));
        if bound.public_groups().next().is_some() {
            continue;
        }
        let groups: Vec<admin::Group> = bound.groups.iter().copied().filter_map(operators_group).collect();
        let sockets = bound.sockets.drain(..).map(admin::Source::Own);
        listeners.extend(sockets.map(|source| admin::Listener { source, groups: groups.clone() }));
    }
    let reloader = shared.reloader.clone();
    admin::start(admin::Operators {
        reload: Arc::new(move || reloader.order()),
        listeners,
        token: shared.config.operator_token.clone(),
        limits: shared.config.limits.http.clone(),
        registry: shared.registry.clone(),
        health: shared.health.clone(),
        pages,
        cmdline: config::cli::shown(std::env::args_os()),
        heap_profile: shared.config.heap_profile,
        drain: shared.drain.clone(),
        drain_time: shared.config.limits.life.drain,
    })
}

fn start_cores(shared: &Shared, bound: &mut [Bound]) -> io::Result<()> {
    let Shared { config, cores, .. } = shared;
    let limits = Arc::new(config.limits.clone());
    let pages_at = banner::address_of(bound, Group::Swagger);
    let page = demo::page(config, banner::address_of(bound, Group::WebSocket));
    let with_api = bound.iter().find(|bound| bound.groups.contains(&Group::Http));
    let operators = with_api.and_then(|bound| bound.shared.clone());
    let mut driven = None;
    for core in 0..*cores {
        let mut take = |wanted: &[Group]| -> Vec<(TcpListener, Option<api::SharedListener>)> {
            let same = bound.iter_mut().filter(|bound| bound.public_groups().eq(wanted.iter().copied()));
            same.filter_map(|bound| Some((bound.sockets.pop()?, bound.shared.clone()))).collect()
        };
        let alone = |listeners: Vec<(TcpListener, _)>| listeners.into_iter().map(|(socket, _)| socket).collect();
        let parts = CoreParts {
            hub: HubSettings {
                node: config.node,
                boot: shared.boot,
                core,
                limits: limits.clone(),
                rules: config.tags.clone(),
                outboxes_bytes_max: memory::outboxes_bytes_max(&limits, *cores),
            },
            gateway: gateway_settings(shared),
            api: ApiParts {
                projects: config.projects.clone(),
                limits: config.limits.clone(),
                health: shared.health.clone(),
                stage_latency: config.stage_latency,
                traces: shared.traces.clone(),
                pages: pages_at.map(PageOrigin::new),
                demo: page.clone(),
                operators: operators.clone(),
            },
            admission: shared.admission.clone(),
            counters: shared.registry.register(&core.to_string()),
            inbox: shared.to_cores[usize::from(core)].clone(),
            orders: shared.orders[usize::from(core)].clone(),
            outgoing: shared.from_cores.clone(),
            health: shared.health.clone(),
            ws: take(&[Group::WebSocket]),
            http: alone(take(&[Group::Http])),
            shared: alone(take(&[Group::WebSocket, Group::Http])),
            driver: match config.driver {
                config::Driver::Auto => Driver::Auto,
                config::Driver::Uring => Driver::Uring,
                config::Driver::Epoll => Driver::Epoll,
            },
            pinned: *cores == machine::cores(),
        };
        driven = Some(cores::start(parts)?);
    }
    if let Some(driven) = driven {
        tracing::info!(cores, driver = %driven, "the cores run");
    }
    Ok(())
}

fn gateway_settings(Shared { config, traces, router, .. }: &Shared) -> GatewaySettings {
    GatewaySettings {
        node: config.node,
        projects: config.projects.clone(),
        rules: config.tags.clone(),
        auth_reject: match config.auth_reject {
            config::AuthReject::Close => AuthReject::Close,
            config::AuthReject::Http => AuthReject::Http,
        },
        own_origin_only: !config.any_origin_by_default(),
        stage_latency: config.stage_latency,
        traces: traces.clone(),
        router: router.clone(),
        names_next: config.public_addr.is_some(),
    }
}

fn random_boot() -> Boot {
    Boot(u32::try_from(random() >> 32).unwrap_or_default())
}

/// The standard library's hasher is keyed at random; that is all the randomness a boot needs.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
