//! What clients send is read as RFC 6455 says, however it is cut, and what breaks a rule is refused.
