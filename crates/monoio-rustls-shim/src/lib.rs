//! Empty on purpose: `monoio-http` declares this dependency without using it.
