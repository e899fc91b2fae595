//! The node's control thread: a small tokio runtime for the admin server and the lease.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use axum::Router;
use tokio::runtime;
use tokio::sync::oneshot;

use crate::admin;
use crate::lease::Lease;

/// The running thread; ends when it is dropped.
pub(crate) struct Control {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Renews the lease and, where there is a listener, serves the admin routes.
    pub(crate) fn start(
        listener: Option<TcpListener>,
        router: Router,
        lease: Arc<Lease>,
    ) -> io::Result<Self> {
        // A thread of its own: the shards' loops are not to share a core's time slice with a scrape more than they must.
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = Builder::new().name("control".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let renewals = tokio::spawn(lease.keep());
                // Both the order to stop and the loss of whoever gives it end the wait.
                let stopped = async move { drop(stopped.await) };
                match listener {
                    Some(listener) => {
                        if let Err(error) = admin::serve(listener, router, stopped).await {
                            tracing::error!(%error, "the admin server ended");
                        }
                    }
                    None => stopped.await,
                }
                renewals.abort();
            });
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It logs what goes wrong itself.
            let _ = thread.join();
        }
    }
}
