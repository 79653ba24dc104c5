//! `baton status`: how services stand.

use std::path::Path;
use std::time::Duration;

use baton_core::ids::ServiceName;
use baton_wire::api::ServiceStatus;

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
    let services = show(typed.as_ref(), context)?;
    guards::remind(context);
    let stuck = services.into_iter().filter(|status| status.needs_person.is_some());
    let stuck: Vec<String> = stuck.map(|status| status.service).collect();
    if stuck.is_empty() { Ok(()) } else { Err(Failure::Stuck(stuck.join(", "))) }
}

/// Prints one service or all, as they are.
fn show(typed: Option<&ServiceName>, context: &Context) -> Result<Vec<ServiceStatus>, Failure> {
    let ui = &context.ui;
    if let Some(service) = typed {
        let status = context.client.service(service)?;
        ui.result(&status, |status| detail(status, now_ms(), ui.width, ui.paint))?;
        return Ok(vec![status]);
    }
    let services = match Project::read(Path::new("."))? {
        Some(project) => vec![context.client.service(&project.settings.service)?],
        None => context.client.services()?,
    };
    ui.result(&services, |services| match services.as_slice() {
        [one] => detail(one, now_ms(), ui.width, ui.paint),
        several => overview(several, now_ms(), ui.width),
    })?;
    Ok(services)
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
