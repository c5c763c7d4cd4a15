//! The connections to one server.
//!
//! Two carry commands (one for what must not wait, one for reading), a third the live channels.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use fred::{
    clients::Client,
    interfaces::ClientLike,
    types::{
        ClusterHash, ConnectHandle, CustomCommand, Value,
        config::{Config, Server as Address},
    },
};
use tokio::task::JoinHandle;

use crate::{
    Lane, LinkError, Pending, Reply,
    connect::{client, watch},
    listening::{Channels, Listening},
    trouble::Trouble,
};

/// The connections to one server. Dropping it closes them.
pub struct Server {
    number: u64,
    address: Address,
    write: Client,
    read: Client,
    pub(crate) listening: Listening,
    trouble: Arc<Trouble>,
    tasks: Vec<ConnectHandle>,
    watchers: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts to connect, and goes on doing so for ever.
    pub(crate) fn start(
        (number, address): (u64, &Address),
        config: &Config,
        (channels, messages_max): (Channels, usize),
        trouble: Arc<Trouble>,
    ) -> Result<Self, LinkError> {
        let (write, read) = (client(config)?, client(config)?);
        let told = (number, trouble.clone());
        let (listening, subscriber_task) = Listening::start(config, channels, messages_max, told)?;
        let address = address.clone();
        let watchers = vec![watch(&write, "write"), watch(&read, "read")];
        let tasks = vec![write.connect(), read.connect(), subscriber_task];
        Ok(Self { number, address, write, read, listening, trouble, tasks, watchers })
    }

    /// Tells these connections from all others of the link, also from later ones to the same address.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Sends a command with its arguments and waits for the answer.
    pub fn call(&self, lane: Lane, command: &'static str, arguments: Vec<Bytes>) -> Pending<'_, Reply> {
        let client = match lane {
            Lane::Write => &self.write,
            Lane::Read => &self.read,
        };
        Box::pin(async move {
            let answer = call(client, command, arguments).await;
            if let Err(error) = &answer {
                self.trouble.failed(self.number, error);
            }
            answer
        })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// The connection that others may ask questions on.
    pub(crate) fn scout(&self) -> &Client {
        &self.read
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.write.is_connected() && self.read.is_connected()
    }
}

/// Sends a command over this connection and waits for the answer.
pub(crate) async fn call(client: &Client, command: &'static str, arguments: Vec<Bytes>) -> Result<Reply, LinkError> {
    if !client.is_connected() {
        return Err(LinkError::NotSent("waiting for a connection".to_owned()));
    }
    let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
    let arguments: Vec<Value> = arguments.into_iter().map(Value::Bytes).collect();
    match client.custom_raw(command, arguments).await {
        Ok(frame) => Reply::from_frame(frame),
        Err(error) => Err(LinkError::Unknown(error.to_string())),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.watchers.iter().for_each(JoinHandle::abort);
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("number", &self.number).field("address", &self.address).finish_non_exhaustive()
    }
}
