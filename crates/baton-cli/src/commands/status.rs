//! `baton status`: how services stand.

use std::path::Path;
use std::time::Duration;

use baton_core::ids::ServiceName;

use crate::args::Status;
use crate::commands::guards;
use crate::context::Context;
use crate::failure::Failure;
use crate::moment::now_ms;
use crate::patience::ask;
use crate::project::Project;
use crate::reader;
use crate::render::service::{detail, overview};
use crate::ui::Live;

/// How long one question waits for a change: shorter than what proxies allow.
const QUESTION: Duration = Duration::from_secs(25);

/// Prints one service or all.
pub fn run(args: Status, context: &Context) -> Result<(), Failure> {
    let typed = args.service.or(args.named);
    if args.watch {
        return watch(&context.service(typed)?, context);
    }
    show(typed.as_ref(), context)?;
    guards::remind(context);
    Ok(())
}

/// Prints one service or all, as they are.
fn show(typed: Option<&ServiceName>, context: &Context) -> Result<(), Failure> {
    let ui = &context.ui;
    if let Some(service) = typed {
        let status = context.client.service(service)?;
        return ui.result(&status, |status| detail(status, now_ms(), ui.width, ui.paint));
    }
    let services = match Project::read(Path::new("."))? {
        Some(project) => vec![context.client.service(&project.settings.service)?],
        None => context.client.services()?,
    };
    ui.result(&services, |services| match services.as_slice() {
        [one] => detail(one, now_ms(), ui.width, ui.paint),
        several => overview(several, now_ms(), ui.width),
    })
}

/// Prints a service whenever it changes, until Ctrl-C. A server that is away is waited for.
fn watch(service: &ServiceName, context: &Context) -> Result<(), Failure> {
    let (ui, mut live) = (&context.ui, Live::default());
    let mut status = context.client.service(service)?;
    reader::end_without()?;
    loop {
        if ui.is_live() {
            live.draw(ui, &detail(&status, now_ms(), ui.width, ui.paint))?;
        } else {
            ui.result(&status, |status| format!("{}\n", detail(status, now_ms(), ui.width, ui.paint)))?;
        }
        let shown = status.version;
        while status.version == shown {
            let newer = || context.client.service_after(service, shown, QUESTION);
            status = ask(ui, newer, || live.leave())?;
        }
    }
}
