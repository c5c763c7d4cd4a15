//! One core's state: who is connected, and what waits to be sent to them.
