//! Which process is at the other end of a connection on loopback.

use std::fs;

use tokio::net::TcpStream;

/// The process that made the connection, by way of `/proc`; nobody where there is none, or it is not ours to see.
pub(super) fn of(client: &TcpStream) -> Option<u32> {
    let (from, to) = (
        client.peer_addr().ok()?.port(),
        client.local_addr().ok()?.port(),
    );
    let socket = format!("socket:[{}]", inode(from, to)?);
    let owns = |pid: &u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        files.flatten().any(|file| {
            fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == socket.as_str())
        })
    };
    processes().find(owns)
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The inode of the socket that is bound to port `from` and connected to port `to`.
fn inode(from: u16, to: u16) -> Option<u64> {
    let table = fs::read_to_string("/proc/self/net/tcp").ok()?;
    let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_it = port(fields.get(1)?)? == from && port(fields.get(2)?)? == to;
        if is_it {
            fields.get(9)?.parse().ok()
        } else {
            None
        }
    })
}
