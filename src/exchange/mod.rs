//! One node's state: tags, interest, back-ends, requests, who is online.
