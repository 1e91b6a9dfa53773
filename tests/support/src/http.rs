//! Just enough of an HTTP client to ask servers for their health.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Error;

/// The largest answer read: metrics pages of etcd are below 200 KiB.
const MAX_ANSWER_BYTES: u64 = 4 << 20;

/// Status and body of `GET path`. HTTP/1.0, so that the answer is neither chunked nor kept open.
pub(crate) async fn get(host_port: &str, path: &str) -> Result<(u16, String), Error> {
    let mut stream = TcpStream::connect(host_port)
        .await
        .map_err(Error::io(format!("connect to {host_port}")))?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host_port}\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(Error::io("send an HTTP request"))?;
    let mut answer = Vec::new();
    stream
        .take(MAX_ANSWER_BYTES)
        .read_to_end(&mut answer)
        .await
        .map_err(Error::io(format!("read the answer of {host_port}{path}")))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| {
            Error::Unexpected(format!(
                "{host_port}{path} did not answer in HTTP: {head:?}"
            ))
        })?;
    Ok((status, body.to_owned()))
}
