//! The product's own accept loop, handshake, decoder and writer with an echo behind them, for the Autobahn suite.
//!
//! `echo --port 9001 [--driver uring|epoll]`. No authentication, no greeting; its limits are raised, because the suite
//! sends messages of 16 MiB and 65,536 fragments. Compresses whatever it echoes to who has agreed on that.

use std::{net::IpAddr, process::ExitCode, rc::Rc, sync::Arc, time::Duration};

use clap::Parser;
use futures_util::future::LocalBoxFuture;
use monoio::net::{ListenerOpts, TcpListener};
use ws_cluster::{
    hub::{HubSettings, NewSession},
    limits::Limits,
    metrics::Counters,
    model::{Boot, Pid, Role, SessionId, TagRules, network::Networks},
    protocol::{decoder::Message, frame::OpCode, handshake::Upgrade},
    shard::{self, Admission, Admitted, Core, Hangup, Permit, Plain, Service, Verdict},
};

#[derive(Parser)]
struct Flags {
    #[arg(long, default_value_t = 9001)]
    port: u16,
    /// uring, epoll, or what the kernel allows
    #[arg(long, default_value = "auto")]
    driver: shard::Driver,
}

struct Echo {
    pid: Pid,
}

impl Service for Echo {
    type Peer = ();

    fn judge(&self, _: &Core, _: &Upgrade, _: IpAddr, _: &mut Permit) -> Verdict<()> {
        let session = NewSession {
            pid: self.pid.clone(),
            role: Role::User,
            uid: "echo".into(),
            device: None,
            tag_patterns: None,
            expires: None,
            deflate: None,
        };
        Verdict::Admit(Box::new(Admitted { session, peer: () }))
    }

    fn plain(&self, _: &Core, _: &str) -> Option<Plain> {
        None
    }

    fn is_endpoint(&self, _: &str) -> bool {
        true
    }

    fn opened(&self, _: &Rc<Core>, (): &mut (), _: SessionId) {}

    fn message(&self, core: &Rc<Core>, (): &mut (), id: SessionId, message: Message<'_>) -> Result<(), Hangup> {
        let (opcode, payload) = match message {
            Message::Text(text) => (OpCode::Text, text.as_bytes()),
            Message::Binary(bytes) => (OpCode::Binary, bytes),
            _ => return Ok(()),
        };
        core.with_hub(|hub| hub.send_message(id, opcode, payload));
        Ok(())
    }

    fn turn_ended(&self, _: &Rc<Core>, (): &mut (), _: SessionId) -> Option<LocalBoxFuture<'static, ()>> {
        None
    }

    fn closed(&self, core: &Rc<Core>, (): (), id: SessionId) {
        core.with_hub(|hub| hub.close(id));
    }

    fn message_bytes_max(&self, core: &Core, _: Role) -> usize {
        core.limits().frames.user_message_bytes_max
    }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.frames.user_message_bytes_max = 17 << 20;
    limits.frames.fragments_max = 70_000;
    limits.frames.messages_per_second = u32::MAX;
    limits.frames.messages_burst = u32::MAX;
    limits.frames.control_frames_per_second = u32::MAX;
    limits.frames.bytes_per_second = 0;
    limits.writing.outbox_bytes_max = 64 << 20;
    limits.writing.outbox_frames_max = 1 << 20;
    limits.writing.write_timeout = Duration::from_secs(60);
    limits.opening.connections_per_address = 0;
    limits.compression.deflate_bytes_min = 0;
    limits.compression.deflate_bytes_max = usize::MAX;
    limits
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let served = shard::run_on_driver(flags.driver, move |_| async move {
        let limits = Arc::new(limits());
        let admission = Admission::new(limits.opening.clone(), 1 << 20, Networks::default());
        let rules = TagRules::default();
        let settings = HubSettings { node: 0, boot: Boot(0), core: 0, limits, rules, outboxes_bytes_max: usize::MAX };
        let core = Core::new(settings, Arc::<Counters>::default())?;
        let listener = TcpListener::bind_with_config(("127.0.0.1", flags.port), &ListenerOpts::new())?;
        let service = Rc::new(Echo { pid: Pid::new("echo").expect("a pid") });
        monoio::spawn(core.clone().walk());
        monoio::spawn(shard::tick(core.clone()));
        shard::accept(core, service, listener, admission, None).await;
        std::io::Result::Ok(())
    });
    match served {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) | Err(error) => {
            eprintln!("echo ended: {error}");
            ExitCode::FAILURE
        }
    }
}
