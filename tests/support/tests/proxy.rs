//! The proxy forwards, refuses, holds back and loses, as told.

use std::io::ErrorKind;
use std::time::Duration;

use palisade_test_support::{Error, Proxy, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Nothing arrives for this long: nothing will.
const SILENCE: Duration = Duration::from_millis(300);

/// A server that answers each byte with the next one up.
async fn server(tasks: &mut JoinSet<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port is free");
    let address = listener.local_addr().expect("it listens").to_string();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                while let Ok(byte) = stream.read_u8().await {
                    if stream.write_u8(byte + 1).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

async fn ask(stream: &mut TcpStream, byte: u8) -> std::io::Result<u8> {
    stream.write_u8(byte).await?;
    stream.read_u8().await
}

#[tokio::test]
async fn forwards_until_cut_and_again_when_healed() {
    let mut tasks = JoinSet::new();
    let proxy = Proxy::start(&server(&mut tasks).await).await.unwrap();
    let mut stream = TcpStream::connect(proxy.host_port()).await.unwrap();
    assert_eq!(ask(&mut stream, 1).await.unwrap(), 2);

    proxy.cut().await.unwrap();
    assert_eq!(
        stream.read_u8().await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    let refused = TcpStream::connect(proxy.host_port()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    proxy.heal().await.unwrap();
    let mut stream = TcpStream::connect(proxy.host_port()).await.unwrap();
    assert_eq!(ask(&mut stream, 1).await.unwrap(), 2);
    proxy.reset();
    assert_eq!(
        stream.read_u8().await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

#[tokio::test]
async fn a_black_hole_delivers_late() {
    let mut tasks = JoinSet::new();
    let proxy = Proxy::start(&server(&mut tasks).await).await.unwrap();
    let mut stream = TcpStream::connect(proxy.host_port()).await.unwrap();
    assert_eq!(ask(&mut stream, 1).await.unwrap(), 2);

    proxy.blackhole();
    stream.write_u8(3).await.unwrap();
    let answer = within("an answer", SILENCE, stream.read_u8()).await;
    assert!(matches!(answer, Err(Error::TimedOut { .. })), "{answer:?}");
    let mut other = TcpStream::connect(proxy.host_port()).await.unwrap();
    let answer = within("an answer", SILENCE, ask(&mut other, 5)).await;
    assert!(matches!(answer, Err(Error::TimedOut { .. })), "{answer:?}");

    proxy.heal().await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 4);
    assert_eq!(other.read_u8().await.unwrap(), 6);
}

#[tokio::test]
async fn lost_answers_are_lost_and_the_connection_with_them() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(&listener.local_addr().unwrap().to_string())
        .await
        .unwrap();
    let mut client = TcpStream::connect(proxy.host_port()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    proxy.drop_replies();
    client.write_u8(7).await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), 7, "the request arrives");
    server.write_u8(8).await.unwrap();
    let answer = within("an answer", SILENCE, client.read_u8()).await;
    assert!(matches!(answer, Err(Error::TimedOut { .. })), "{answer:?}");

    proxy.heal().await.unwrap();
    assert_eq!(
        client.read_u8().await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

#[tokio::test]
async fn a_server_that_is_away_resets() {
    let away = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let proxy = Proxy::start(&format!("http://{away}")).await.unwrap();
    let mut stream = TcpStream::connect(proxy.host_port()).await.unwrap();
    assert_eq!(
        stream.read_u8().await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

#[tokio::test]
async fn a_dropped_proxy_is_gone() {
    let mut tasks = JoinSet::new();
    let proxy = Proxy::start(&server(&mut tasks).await).await.unwrap();
    let address = proxy.host_port();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    assert_eq!(ask(&mut stream, 1).await.unwrap(), 2);
    drop(proxy);
    assert!(
        within("the end", Duration::from_secs(5), stream.read_u8())
            .await
            .unwrap()
            .is_err()
    );
    assert!(TcpStream::connect(&address).await.is_err());
}
