//! Build steps: what they make is brought from the store, or made and brought there.

mod aside;
mod command;
mod kept;
mod platform;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use baton_core::build::{Recipe, Step};
use baton_core::ids::BuildKey;
use baton_core::release::{ExternalLinks, Tree, TreePath};
use baton_core::units::Millis;
use baton_release::build::{Outputs, RestoreError, inputs, restore};
use baton_release::push::PushError;
use baton_release::record::Record;
use baton_release::remote::Remote;
use serde::Serialize;

use crate::build::aside::{Aside, Bench};
use crate::build::kept::{Kept, Last};
use crate::context::Context;
use crate::failure::{Failure, chain};
use crate::project::Project;
use crate::{caches, render};

/// Why a step has not made what it should.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// What it is made of, or what it has made, cannot be read.
    #[error("step {step} cannot be taken")]
    Read {
        /// The step.
        step: String,
        /// Why.
        #[source]
        source: PushError,
    },
    /// What it makes cannot be put in its place.
    #[error("step {step} cannot {attempted} {}", path.display())]
    Place {
        /// The step.
        step: String,
        /// What was attempted.
        attempted: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its command cannot be started.
    #[error("step {step} cannot start {program:?}")]
    Start {
        /// The step.
        step: String,
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its command failed.
    #[error("step {step} has failed: {how}; what it prints is above")]
    Ended {
        /// The step.
        step: String,
        /// Its exit code, or the signal that ended it.
        how: String,
    },
    /// Its command did not make what it should.
    #[error("step {step} has not made {output}: correct its outputs in baton.toml, or its command")]
    NoOutput {
        /// The step.
        step: String,
        /// What is not there.
        output: TreePath,
    },
}

/// How a step got what it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It was there.
    Unchanged,
    /// It came from the store.
    Restored,
    /// The command has made it.
    Ran,
}

/// A step that was taken.
#[derive(Debug, Clone, Serialize)]
pub struct Built {
    /// The step.
    pub step: String,
    /// How.
    pub how: How,
    /// What its outputs are kept under.
    pub key: String,
    /// Why it was not unchanged.
    pub why: Vec<String>,
    /// How many files it has made.
    pub files: u64,
    /// How long they are together.
    pub bytes: u64,
}

/// Whose outputs are good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// What the store has: whoever can push may have made it.
    Store,
    /// Only what was made on this machine. Whoever signs a release vouches for all that is in it.
    Here,
}

/// Takes all steps of a project in their order, and says so.
///
/// # Errors
/// One fails; those after it are not taken. What it makes is as it was before then.
pub fn build(
    project: &Project,
    context: &Context,
    trust: Trust,
    explain: bool,
) -> Result<Vec<Built>, Failure> {
    let steps = &project.settings.build;
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let bench = Bench::take(&project.dir, steps, &context.ui)
        .map_err(|source| Failure::Read { path: project.dir.clone(), source })?;
    let store = match context.client.services() {
        Ok(_) => Some(Remote::of(context.client.control())),
        Err(error) if error.is_away() => {
            context.ui.remark(&format!("nothing is brought from the store or kept there: {}", chain(&error)));
            None
        }
        Err(error) => return Err(error.into()),
    };
    let work = Work { project, context, bench: &bench, store: store.as_ref(), trust };
    steps
        .iter()
        .map(|step| {
            let start = Instant::now();
            let built = work.take(step)?;
            context.ui.text(&told(&built, start.elapsed(), explain))?;
            Ok(built)
        })
        .collect()
}

fn told(built: &Built, took: Duration, explain: bool) -> String {
    let Built { step, how, why, files, bytes, .. } = built;
    let size = format!("{}, {}", render::count(*files, "file"), render::bytes(*bytes));
    let took = Millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    let mut text = match how {
        How::Unchanged => format!("{step}: unchanged\n"),
        How::Restored => format!("{step}: {size} from the store in {took}\n"),
        How::Ran => format!("{step}: made {size} in {took}\n"),
    };
    if explain {
        why.iter().for_each(|why| text.push_str(&format!("  {}\n", crate::escape::escape(why))));
    }
    text
}

/// What all steps are taken with.
struct Work<'a> {
    project: &'a Project,
    context: &'a Context,
    bench: &'a Bench,
    /// Where outputs are kept; nothing while it is away.
    store: Option<&'a Remote>,
    trust: Trust,
}

impl Work<'_> {
    fn take(&self, step: &Step) -> Result<Built, Failure> {
        let read = |source| BuildError::Read { step: step.name.clone(), source };
        let links = self.external_links();
        let tree = inputs(self.dir(), step, links, folder(step, "inputs").as_deref()).map_err(read)?;
        let recipe = Recipe::new(step, &tree, &platform::platform(), |name| {
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        });
        let kept = Kept::of(self.dir(), step);
        let before = kept.as_ref().and_then(Kept::read);
        let here = self.outputs(step)?;
        let good = |last: &Last| self.trust == Trust::Store || last.made_here;
        if let (Some(last), Some(here)) = (&before, &here)
            && last.recipe == recipe
            && here.record().id == last.outputs
            && good(last)
        {
            return Ok(built(step, How::Unchanged, &recipe, Vec::new(), here.tree()));
        }
        let why = match &before {
            None => vec!["it was not built in this directory before".to_owned()],
            Some(last) if last.recipe != recipe => recipe.differences(&last.recipe),
            Some(last) if !good(last) => {
                vec!["what it made came from the store, and is to be signed".to_owned()]
            }
            Some(_) => vec!["what it made was altered".to_owned()],
        };
        let how = if self.bring(step, recipe.key())? { How::Restored } else { How::Ran };
        if how == How::Ran {
            self.run(step)?;
        }
        let outputs = self.complete(step)?;
        if how == How::Ran {
            self.keep(&outputs, step, recipe.key());
        }
        if let Some(kept) = kept {
            let (outputs, made_here) = (outputs.record().id, how == How::Ran);
            kept.write(&Last { outputs, made_here, recipe: recipe.clone() });
        }
        Ok(built(step, how, &recipe, why, outputs.tree()))
    }

    fn dir(&self) -> &Path {
        &self.project.dir
    }

    fn external_links(&self) -> &ExternalLinks {
        &self.project.settings.push.external_links
    }

    /// What a step makes, if all of it is there.
    fn outputs(&self, step: &Step) -> Result<Option<Outputs>, BuildError> {
        if self.absent(step).is_some() {
            return Ok(None);
        }
        let (service, caches) = (&self.project.settings.service, folder(step, "outputs"));
        let read = Outputs::read(self.dir(), service, step, self.external_links(), caches.as_deref());
        read.map(Some).map_err(|source| BuildError::Read { step: step.name.clone(), source })
    }

    fn absent<'s>(&self, step: &'s Step) -> Option<&'s TreePath> {
        step.outputs.iter().find(|output| fs::symlink_metadata(self.dir().join(output.as_str())).is_err())
    }

    /// The same, where all of it must be there.
    fn complete(&self, step: &Step) -> Result<Outputs, BuildError> {
        let no = |output: &TreePath| BuildError::NoOutput { step: step.name.clone(), output: output.clone() };
        match (self.outputs(step)?, self.absent(step)) {
            (Some(outputs), _) => Ok(outputs),
            (None, Some(output)) => Err(no(output)),
            // It has come while it was looked for.
            (None, None) => Err(no(&step.outputs[0])),
        }
    }

    /// Brings what a step makes from the store; tells whether it was there.
    fn bring(&self, step: &Step, key: BuildKey) -> Result<bool, BuildError> {
        let Some(store) = self.store.filter(|_| self.trust == Trust::Store) else { return Ok(false) };
        let remark = |why: &str| {
            self.context
                .ui
                .remark(&format!("what {} makes cannot be brought from the store: {why}", step.name));
        };
        let record = match self.context.client.outputs(key) {
            Ok(None) => return Ok(false),
            Ok(Some(text)) => Record::parse(&text),
            Err(error) => {
                remark(&chain(&error));
                return Ok(false);
            }
        };
        let Some(record) = record else { return Ok(false) };
        let place = |attempted, path: &Path| place_error(step, attempted, path);
        let new = self.bench.new_folder().map_err(place("create", self.bench.path()))?;
        match restore(&record, store, self.external_links(), &new) {
            Ok(tree) if step.outputs.iter().all(|output| tree.get(output.as_str()).is_some()) => {}
            Ok(_) => {
                remark("it is not complete");
                return Ok(false);
            }
            Err(RestoreError::Disk(error)) => {
                return Err(place(error.attempted, &error.path)(error.source));
            }
            Err(error) => {
                remark(&chain(&error));
                return Ok(false);
            }
        }
        let aside = Aside::take(self.bench, step).map_err(place("move away what is at", self.dir()))?;
        aside.put(&new).map_err(place("put in its place", &new))?;
        aside.settle();
        Ok(true)
    }

    /// Runs the command of a step. When it fails, what was there before is there again.
    fn run(&self, step: &Step) -> Result<(), Failure> {
        let aside =
            Aside::take(self.bench, step).map_err(place_error(step, "move away what is at", self.dir()))?;
        let aside = command::run(step, self.dir(), aside, &self.context.interrupt)?;
        if let Some(output) = self.absent(step) {
            return Err(BuildError::NoOutput { step: step.name.clone(), output: output.clone() }.into());
        }
        aside.settle();
        Ok(())
    }

    /// Keeps what a step has made, for whoever needs it next. It has been made, whether that works or not.
    fn keep(&self, outputs: &Outputs, step: &Step, key: BuildKey) {
        let Some(store) = self.store else { return };
        let record = outputs.record().to_text();
        let keep = |all| -> Result<bool, Failure> {
            outputs.send(store, all)?;
            Ok(self.context.client.keep_outputs(key, &record)?)
        };
        let kept = match keep(false) {
            // Some of it was there once, and is lost.
            Ok(false) => keep(true),
            kept => kept,
        };
        let why = match kept {
            Ok(true) => return,
            Ok(false) => "the store has lost some of it".to_owned(),
            Err(error) => error.message(),
        };
        self.context.ui.remark(&format!("what {} makes is not kept for others: {why}", step.name));
    }
}

fn place_error(
    step: &Step,
    attempted: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> BuildError + use<> {
    let (step, path) = (step.name.clone(), path.to_owned());
    move |source| BuildError::Place { step, attempted, path, source }
}

/// Where it is remembered what was found out about files of a step.
fn folder(step: &Step, what: &str) -> Option<PathBuf> {
    caches::folder(&format!("build/{}/{what}", step.name))
}

fn built(step: &Step, how: How, recipe: &Recipe, why: Vec<String>, tree: &Tree) -> Built {
    Built {
        step: step.name.clone(),
        how,
        key: recipe.key().to_string(),
        why,
        files: tree.files().count() as u64,
        bytes: tree.bytes(),
    }
}
