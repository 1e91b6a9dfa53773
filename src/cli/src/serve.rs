use std::env;
use std::path::PathBuf;

use palisade_coordinator::config::{Settings, StoreChoice};
use palisade_coordinator::serve::{Addresses, Server};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use crate::args::{DevArgs, Faces, ServeArgs};
use crate::failure::Failure;
use crate::output;
use crate::signals::{Stop, Stopped};

const FILE_NAME: &str = "palisade.db";

/// `palisade serve`.
pub(crate) async fn serve(args: ServeArgs) -> Result<(), Failure> {
    let stop = Stop::listen()?;
    let store = if args.etcd.is_empty() {
        StoreChoice::Embedded {
            path: args.embedded.unwrap_or_else(default_file),
        }
    } else {
        StoreChoice::Etcd {
            endpoints: args.etcd,
            prefix: args.etcd_prefix,
        }
    };
    let server = open(store.clone(), &args.faces).await?;
    if let StoreChoice::Embedded { path } = &store {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        output::note(format_args!(
            "\
palisade: no etcd: all state is in one file, which this process alone uses.
  file       {}
  good for   one machine, where an outage of this process may stop all granting
  not for    high availability: while it is down nothing is granted or renewed, and if the file
             is lost every lease ends; tokens still grow, as long as this machine's clock is right
  instead    palisade serve --etcd URL,URL,URL",
            path.display()
        ));
    }
    run(server, stop, args.end_with_stdin).await
}

/// Where a service manager wants state to be, else here.
fn default_file() -> PathBuf {
    // systemd lists several directories with colons between them; the first is ours.
    let directory = env::var_os("STATE_DIRECTORY").unwrap_or_default();
    env::split_paths(&directory)
        .next()
        .unwrap_or_default()
        .join(FILE_NAME)
}

/// `palisade dev`.
pub(crate) async fn dev(args: DevArgs) -> Result<(), Failure> {
    let stop = Stop::listen()?;
    let home = tempfile::Builder::new()
        .prefix("palisade-dev-")
        .tempdir()
        .map_err(Failure::io("make a directory for the state"))?;
    let store = StoreChoice::Embedded {
        path: home.path().join(FILE_NAME),
    };
    let server = open(store, &args.faces).await?;
    let Addresses { grpc, http } = server.addresses();
    output::note(format_args!(
        "\
+--------------------------------------------------------------------------+
|  palisade dev: to try things out, NOT for production.                    |
|  All leases are thrown away when this process ends.                      |
+--------------------------------------------------------------------------+
  gRPC    {grpc}
  health  http://{http}/readyz
  try     palisade acquire orders/eu-1 --addr http://{grpc}
"
    ));
    let result = run(server, stop, false).await;
    home.close().map_err(Failure::io("throw the state away"))?;
    result
}

async fn open(store: StoreChoice, faces: &Faces) -> Result<Server, Failure> {
    let settings = Settings {
        listen: faces.listen,
        http: faces.http,
        ..Settings::local(store)
    };
    let server = Server::open(settings).await?;
    let Addresses { grpc, http } = server.addresses();
    output::data(format_args!(
        "PALISADE_ADDR=http://{grpc}\nPALISADE_HTTP_ADDR=http://{http}"
    ))?;
    Ok(server)
}

async fn run(server: Server, mut stop: Stop, end_with_stdin: bool) -> Result<(), Failure> {
    let shutdown = CancellationToken::new();
    let mut running = std::pin::pin!(server.run(shutdown.clone()));
    tokio::select! {
        ended = &mut running => return ended.map_err(Failure::from),
        _ = stop.asked() => output::note("palisade: ending; a second signal ends it at once"),
        () = stdin_closed(), if end_with_stdin => {}
    }
    shutdown.cancel();
    tokio::select! {
        ended = running => ended.map_err(Failure::from),
        again = stop.asked() => Err(Stopped::failure(again, "ended at once; calls were cut off")),
    }
}

async fn stdin_closed() {
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0; 64];
    while matches!(stdin.read(&mut ignored).await, Ok(1..)) {}
}
