use palisade_coordinator::config::{Settings, StoreChoice};
use palisade_coordinator::serve::{Addresses, Reload, Server};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use crate::args::{DevArgs, ServeArgs};
use crate::config::{self, FILE_NAME};
use crate::failure::Failure;
use crate::output;
use crate::signals::{Stop, Stopped};
use crate::traces::Export;

/// `palisade serve`.
pub(crate) async fn serve(args: ServeArgs) -> Result<(), Failure> {
    let stop = Stop::listen()?;
    let settings = config::of(&args.settings)?;
    let export = Export::start()?;
    let store = settings.store.clone();
    let reads_again = settings.tls.is_some() || settings.token_file.is_some();
    let server = open(settings).await?;
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
    let reload = reads_again.then(|| server.reload());
    run(server, stop, args.end_with_stdin, (reload, export)).await
}

/// `palisade dev`.
pub(crate) async fn dev(args: DevArgs) -> Result<(), Failure> {
    let stop = Stop::listen()?;
    let export = Export::start()?;
    let home = tempfile::Builder::new()
        .prefix("palisade-dev-")
        .tempdir()
        .map_err(Failure::io("make a directory for the state"))?;
    let store = StoreChoice::Embedded {
        path: home.path().join(FILE_NAME),
    };
    let settings = Settings {
        listen: args.faces.listen,
        http: args.faces.http,
        ..Settings::local(store)
    };
    let server = open(settings).await?;
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
    let result = run(server, stop, false, (None, export)).await;
    home.close().map_err(Failure::io("throw the state away"))?;
    result
}

async fn open(settings: Settings) -> Result<Server, Failure> {
    let scheme = if settings.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let server = Server::open(settings).await?;
    let Addresses { grpc, http } = server.addresses();
    output::data(format_args!(
        "PALISADE_ADDR={scheme}://{grpc}\nPALISADE_HTTP_ADDR={scheme}://{http}"
    ))?;
    Ok(server)
}

async fn run(
    server: Server,
    stop: Stop,
    end_with_stdin: bool,
    (reload, export): (Option<Reload>, Option<Export>),
) -> Result<(), Failure> {
    let Some(export) = export else {
        return run_until_told(server, stop, end_with_stdin, reload).await;
    };
    let server = export.of(server);
    let result = run_until_told(server, stop, end_with_stdin, reload).await;
    export.end().await;
    result
}

async fn run_until_told(
    server: Server,
    mut stop: Stop,
    end_with_stdin: bool,
    reload: Option<Reload>,
) -> Result<(), Failure> {
    let shutdown = CancellationToken::new();
    let mut running = std::pin::pin!(server.run(shutdown.clone()));
    tokio::select! {
        ended = &mut running => return ended.map_err(Failure::from),
        () = asked_to_end(&mut stop, reload.as_ref()) => output::note("palisade: ending; a second signal ends it at once"),
        () = stdin_closed(), if end_with_stdin => {}
    }
    shutdown.cancel();
    tokio::select! {
        ended = running => ended.map_err(Failure::from),
        again = stop.asked() => Err(Stopped::failure(again, "ended at once; calls were cut off")),
    }
}

/// Waits for a signal to end. Where there is anything to read again, SIGHUP asks for that.
async fn asked_to_end(stop: &mut Stop, reload: Option<&Reload>) {
    while let (true, Some(reload)) = (stop.asked().await.is_hangup(), reload) {
        reload.now();
    }
}

async fn stdin_closed() {
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0; 64];
    while matches!(stdin.read(&mut ignored).await, Ok(1..)) {}
}
