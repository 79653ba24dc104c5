//! The messages by which a client and a program of ours talk over gRPC and WebSocket.

/// The method that is called by gRPC.
pub const METHOD: &str = "/baton.load.v1.Echo/Ask";
/// Where a WebSocket is opened.
pub const SOCKET: &str = "/socket";

/// A request.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Asked {
    /// The connection's number.
    #[prost(uint64, tag = "1")]
    pub conn: u64,
    /// The request's number.
    #[prost(uint64, tag = "2")]
    pub seq: u64,
    /// How long the work takes, in ms.
    #[prost(uint64, tag = "3")]
    pub ms: u64,
    /// Bytes to be counted.
    #[prost(bytes = "vec", tag = "4")]
    pub filler: Vec<u8>,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Answered {
    /// Who answers and what was asked, as the JSON that HTTP answers have.
    #[prost(string, tag = "1")]
    pub identity: String,
}
