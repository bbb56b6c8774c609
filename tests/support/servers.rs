//! Servers that a test starts for itself, on loopback and on a free port.
//!
//! In: what is needed. Out: a URL; the server ends with the value. Invariant: none outlives its test.
#![allow(dead_code)]

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::tools;

pub struct Server {
    child: Child,
    pub url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Starts `command` and waits until something listens on `port`.
pub fn serve(mut command: Command, port: u16) -> Server {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let server = Server { child, url: format!("http://127.0.0.1:{port}") };
    let (address, since) = (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), Instant::now());
    while TcpStream::connect(address).is_err() {
        assert!(since.elapsed() < Duration::from_secs(60), "{command:?} does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    server
}

/// A DynamoDB: dynoxide where it is installed, else moto.
pub fn dynamodb() -> Option<Server> {
    let port = free_port();
    let dynoxide = tools::tools().join("bin/dynoxide");
    if dynoxide.is_file() {
        let mut command = Command::new(dynoxide);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        return Some(serve(command, port));
    }
    println!("dynoxide is not installed (tests/setup cargo): moto stands in for DynamoDB");
    moto()
}

/// moto's server of many AWS services.
pub fn moto() -> Option<Server> {
    let port = free_port();
    let mut command = Command::new(tools::tool("moto_server")?);
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    Some(serve(command, port))
}

/// kinesis-local, from its own folder as it asks for.
pub fn kinesis_local() -> Option<Server> {
    let (port, package) = (free_port(), tools::node_package("kinesis-local")?);
    let mut command = Command::new(tools::tool("node")?);
    let tls_port = free_port().to_string();
    command.arg("main.js").current_dir(package).env("KINESIS_MOCK_PLAIN_PORT", port.to_string()).env("KINESIS_MOCK_TLS_PORT", tls_port);
    command.env("LOG_LEVEL", "ERROR").env("SHARD_LIMIT", "100");
    for lasting in ["CREATE_STREAM", "DELETE_STREAM", "SPLIT_SHARD", "MERGE_SHARDS", "REGISTER_STREAM_CONSUMER", "DEREGISTER_STREAM_CONSUMER"] {
        command.env(format!("{lasting}_DURATION"), "20ms");
    }
    Some(serve(command, port))
}
