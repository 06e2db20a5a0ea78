//! A QUIC client or server that does what standard input says and tells standard output what came of it.
//!
//! Its language is that of docs/interop.md, which the peer of every other stack speaks too.

mod security;

use std::collections::HashMap;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::{
    AckFrequencyConfig, Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, ReadError, RecvStream,
    SendStream, TokioRuntime, TransportConfig, VarInt, WriteError,
};
use quinn_proto::RandomConnectionIdGenerator;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::oneshot;

type Failure = Box<dyn Error + Send + Sync>;

const PIECE: usize = 65536;

/// What the command line says; the options are those of the other peers.
#[derive(Default)]
pub struct Options(HashMap<String, String>);

impl Options {
    fn read() -> Self {
        let words = std::env::args().skip(1);
        Self(
            words
                .map(|word| {
                    let (name, value) = word.split_once('=').unwrap_or((&word, "true"));
                    (name.trim_start_matches('-').to_string(), value.to_string())
                })
                .collect(),
        )
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        Ok(match self.text(name) {
            Some(word) => Some(word.parse::<u64>()?).filter(|&value| value != 0),
            None => None,
        })
    }

    pub fn flag(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }
}

/// The connection that came last, and how to abandon its streams.
#[derive(Default)]
struct Peer {
    connection: Mutex<Option<Connection>>,
    answers: Mutex<HashMap<u64, SendStream>>,
    resets: Mutex<HashMap<u64, oneshot::Sender<VarInt>>>,
    stops: Mutex<HashMap<u64, oneshot::Sender<VarInt>>>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    if let Err(error) = run().await {
        println!("failed {error}");
        std::process::exit(1);
    }
}

async fn run() -> Result<(), Failure> {
    let options = Options::read();
    let peer = Arc::new(Peer::default());
    let transport = Arc::new(transport(&options)?);
    let socket = UdpSocket::bind(options.text("listen").unwrap_or(any_port(&options)))?;
    let port = socket.local_addr()?.port();
    let runtime = Arc::new(TokioRuntime);
    let endpoint;
    if options.text("listen").is_some() {
        let mut server = quinn::ServerConfig::with_crypto(security::server(&options)?);
        server.transport_config(transport);
        endpoint = Endpoint::new(endpoint_config(&options)?, Some(server), socket, runtime)?;
        println!("listening {port}");
        tokio::spawn(serve(endpoint.clone(), peer.clone(), options.flag("retry")));
    } else {
        let address: SocketAddr = options.text("connect").ok_or("neither listen nor connect")?.parse()?;
        let mut client = quinn::ClientConfig::new(security::client(&options)?);
        client.transport_config(transport);
        endpoint = Endpoint::new(endpoint_config(&options)?, None, socket, runtime)?;
        match endpoint.connect_with(client, address, "peer")?.await {
            Ok(connection) => begin(&peer, connection),
            Err(error) => say_closed(&error),
        }
    }
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let Err(error) = obey(&peer, &endpoint, &words).await {
            println!("failed {error}");
        }
    }
    Ok(())
}

async fn serve(endpoint: Endpoint, peer: Arc<Peer>, retry: bool) {
    while let Some(incoming) = endpoint.accept().await {
        if retry && !incoming.remote_address_validated() {
            let _ = incoming.retry();
            continue;
        }
        let peer = peer.clone();
        tokio::spawn(async move {
            match incoming.await {
                Ok(connection) => begin(&peer, connection),
                Err(error) => say_closed(&error),
            }
        });
    }
}

fn begin(peer: &Arc<Peer>, connection: Connection) {
    *peer.connection.lock().unwrap() = Some(connection.clone());
    println!("connected");
    let (here, there) = (peer.clone(), connection.clone());
    tokio::spawn(async move {
        while let Ok((sending, receiving)) = there.accept_bi().await {
            let id = VarInt::from(receiving.id()).into_inner();
            here.answers.lock().unwrap().insert(id, sending);
            println!("accepted {id}");
            receive(&here, receiving);
        }
    });
    let (here, there) = (peer.clone(), connection.clone());
    tokio::spawn(async move {
        while let Ok(receiving) = there.accept_uni().await {
            println!("accepted {}", VarInt::from(receiving.id()));
            receive(&here, receiving);
        }
    });
    tokio::spawn(async move { say_closed(&connection.closed().await) });
}

async fn obey(peer: &Arc<Peer>, endpoint: &Endpoint, words: &[&str]) -> Result<(), Failure> {
    let connection = peer
        .connection
        .lock()
        .unwrap()
        .clone()
        .ok_or("there is no connection")?;
    match *words {
        ["open", kind, size, end] => {
            let sending = if kind == "uni" {
                connection.open_uni().await?
            } else {
                let (sending, receiving) = connection.open_bi().await?;
                receive(peer, receiving);
                sending
            };
            println!("opened {}", VarInt::from(sending.id()));
            send(peer, sending, size.parse()?, end == "fin");
        }
        ["answer", id, size, end] => {
            let sending = peer
                .answers
                .lock()
                .unwrap()
                .remove(&id.parse()?)
                .ok_or("no such stream")?;
            send(peer, sending, size.parse()?, end == "fin");
        }
        ["reset", id, code] => abandon(&peer.resets, id, code)?,
        ["stop", id, code] => abandon(&peer.stops, id, code)?,
        ["close", code, ..] => connection.close(VarInt::from_u64(code.parse()?)?, words[2..].join(" ").as_bytes()),
        ["update-keys"] => connection.force_key_update(),
        ["migrate"] => {
            let socket = UdpSocket::bind((connection.local_ip().unwrap_or(Ipv4Addr::LOCALHOST.into()), 0))?;
            let port = socket.local_addr()?.port();
            endpoint.rebind(socket)?;
            println!("migrated {port}");
        }
        _ => return Err(format!("no such command: {}", words.join(" ")).into()),
    }
    Ok(())
}

/// The loopback address to call the other side from.
fn any_port(options: &Options) -> &'static str {
    match options.text("connect") {
        Some(address) if address.starts_with('[') => "[::1]:0",
        _ => "127.0.0.1:0",
    }
}

fn abandon(waiting: &Mutex<HashMap<u64, oneshot::Sender<VarInt>>>, id: &str, code: &str) -> Result<(), Failure> {
    let sender = waiting.lock().unwrap().remove(&id.parse()?).ok_or("no such stream")?;
    let _ = sender.send(VarInt::from_u64(code.parse()?)?);
    Ok(())
}

fn receive(peer: &Arc<Peer>, mut stream: RecvStream) {
    let id = VarInt::from(stream.id()).into_inner();
    let (sender, mut stop) = oneshot::channel();
    peer.stops.lock().unwrap().insert(id, sender);
    tokio::spawn(async move {
        let mut digest = Sha256::new();
        let mut size = 0;
        let mut buffer = vec![0; PIECE];
        loop {
            tokio::select! {
                read = stream.read(&mut buffer) => match read {
                    Ok(Some(count)) => {
                        digest.update(&buffer[..count]);
                        size += count;
                    }
                    Ok(None) => {
                        let text: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
                        println!("received {id} {size} {text}");
                        return;
                    }
                    Err(ReadError::Reset(code)) => {
                        println!("reset {id} {code}");
                        return;
                    }
                    Err(_) => return,
                },
                Ok(code) = &mut stop => {
                    let _ = stream.stop(code);
                    return;
                }
            }
        }
    });
}

fn send(peer: &Arc<Peer>, mut stream: SendStream, size: u64, finish: bool) {
    let id = VarInt::from(stream.id()).into_inner();
    let (sender, reset) = oneshot::channel();
    peer.resets.lock().unwrap().insert(id, sender);
    tokio::spawn(async move {
        tokio::select! {
            () = send_all(id, &mut stream, size, finish) => (),
            Ok(code) = reset => {
                let _ = stream.reset(code);
            }
        }
    });
}

async fn send_all(id: u64, stream: &mut SendStream, size: u64, finish: bool) {
    match send_pattern(stream, size).await {
        Ok(()) => (),
        Err(WriteError::Stopped(code)) => {
            println!("stopped {id} {code}");
            return;
        }
        Err(_) => return,
    }
    if finish {
        let _ = stream.finish();
    }
    match stream.stopped().await {
        Ok(Some(code)) => println!("stopped {id} {code}"),
        Ok(None) => println!("sent {id}"),
        Err(_) => (),
    }
}

/// Sends `size` bytes, each of which is the exclusive or of the bytes of its offset.
async fn send_pattern(stream: &mut SendStream, size: u64) -> Result<(), WriteError> {
    let mut buffer = vec![0; PIECE];
    for offset in (0..size).step_by(PIECE) {
        for (at, byte) in (offset..).zip(buffer.iter_mut()) {
            *byte = (at ^ at >> 8 ^ at >> 16 ^ at >> 24) as u8;
        }
        let count = (size - offset).min(PIECE as u64) as usize;
        stream.write_all(&buffer[..count]).await?;
    }
    Ok(())
}

fn transport(options: &Options) -> Result<TransportConfig, Failure> {
    let mut transport = TransportConfig::default();
    if let Some(bytes) = options.number("stream-window")? {
        transport.stream_receive_window(VarInt::from_u64(bytes)?);
    }
    if let Some(bytes) = options.number("window")? {
        transport.receive_window(VarInt::from_u64(bytes)?);
    }
    if let Some(count) = options.number("streams")? {
        transport.max_concurrent_bidi_streams(VarInt::from_u64(count)?);
        transport.max_concurrent_uni_streams(VarInt::from_u64(count)?);
    }
    if let Some(bytes) = options.number("datagram")? {
        transport.initial_mtu(u16::try_from(bytes)?).mtu_discovery_config(None);
    }
    if let Some(word) = options.text("idle") {
        let seconds: f64 = word.trim_end_matches('s').parse()?;
        transport.max_idle_timeout(Some(IdleTimeout::try_from(Duration::from_secs_f64(seconds))?));
    }
    if options.flag("extensions") {
        transport.ack_frequency_config(Some(AckFrequencyConfig::default()));
    } else {
        transport.datagram_receive_buffer_size(None);
    }
    Ok(transport)
}

fn endpoint_config(options: &Options) -> Result<EndpointConfig, Failure> {
    let mut config = EndpointConfig::default();
    if let Some(secret) = options.text("reset-key") {
        // Its usual IDs are known by a key that does not outlive the process: to those of another nothing is answered.
        config.cid_generator(|| Box::new(RandomConnectionIdGenerator::default()));
        config.reset_key(Arc::new(ring::hmac::Key::new(
            ring::hmac::HMAC_SHA256,
            secret.as_bytes(),
        )));
    }
    config.grease_quic_bit(options.flag("extensions"));
    Ok(config)
}

fn say_closed(error: &ConnectionError) {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason);
            println!("closed application remote {} {reason}", close.error_code);
        }
        ConnectionError::ConnectionClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason);
            println!("closed transport remote {} {reason}", u64::from(close.error_code));
        }
        ConnectionError::TransportError(error) => {
            println!("closed transport local {} {}", u64::from(error.code), error.reason);
        }
        ConnectionError::LocallyClosed => println!("closed application local 0"),
        ConnectionError::TimedOut => println!("closed idle local 0"),
        ConnectionError::Reset => println!("closed stateless-reset remote 0"),
        other => println!("closed other local 0 {other}"),
    }
}
