//! A conversation with a node, in which whoever asks gets an answer in time or none.
//!
//! The library's limit is one for each read, so a node of which a byte comes now and then is waited for without an end. So a
//! thread of its own reads, and is left to itself where all of an answer takes too long. It ends with the conversation, or
//! with the last of such an answer.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use redis::{Client, Connection, Pipeline, RedisError, RedisResult, Value};

/// How long connecting may take, and each part of an answer: a node that takes longer hangs, and a rollout may wait.
pub(super) const PART_MAX: Duration = Duration::from_secs(2);
/// How long all the answers may take to what is asked at once: half a lease, and long enough for megabytes.
const ALL_MAX: Duration = Duration::from_secs(5);
/// How many threads may still be reading answers that nobody waits for any more, before nobody is asked.
const READERS_MAX: usize = 8;

/// Everybody who reads answers.
#[derive(Debug, Clone, Default)]
pub(super) struct Readers(Arc<()>);

/// A connection, in the hands of the thread that reads from it.
pub(super) struct Conversation {
    questions: Sender<Question>,
    answers: Receiver<RedisResult<Vec<Value>>>,
}

/// Commands as they are sent, and how many answers there are to them.
struct Question {
    commands: Vec<u8>,
    answers: usize,
}

impl Conversation {
    /// Connects to a node.
    pub(super) fn open(client: Client, readers: &Readers) -> RedisResult<Self> {
        // This one holds it, too.
        if Arc::strong_count(&readers.0) > READERS_MAX {
            return Err(io::Error::other("earlier answers of it still go on").into());
        }
        let (questions, asked) = channel();
        let (answer, answers) = channel();
        let reader = readers.clone();
        let converse = move || {
            let _reader = reader;
            converse(&client, &asked, &answer);
        };
        // Nobody waits for its end: that may be the end of an answer.
        drop(thread::Builder::new().name("redis".to_owned()).spawn(converse)?);
        let conversation = Self { questions, answers };
        conversation.wait()?;
        Ok(conversation)
    }

    /// Sends commands, and waits for their answers: of an error it is the last one.
    pub(super) fn ask(&self, commands: &Pipeline, answers: usize) -> RedisResult<Vec<Value>> {
        let question = Question { commands: commands.get_packed_pipeline(), answers };
        self.questions.send(question).map_err(|_| ended())?;
        self.wait()
    }

    fn wait(&self) -> RedisResult<Vec<Value>> {
        self.answers.recv_timeout(ALL_MAX).unwrap_or_else(|_| Err(ended()))
    }
}

/// Nothing has come, and nothing will.
fn ended() -> RedisError {
    let says = format!("no whole answer within {} s", ALL_MAX.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, says).into()
}

/// What has not come in time is told as such: the system says that a resource is unavailable.
fn in_time<T>(result: RedisResult<T>) -> RedisResult<T> {
    result.map_err(|error| match error.is_timeout() {
        true => {
            let says = format!("no answer within {} s", PART_MAX.as_secs());
            io::Error::new(io::ErrorKind::TimedOut, says).into()
        }
        false => error,
    })
}

fn converse(client: &Client, asked: &Receiver<Question>, answer: &Sender<RedisResult<Vec<Value>>>) {
    let (mut connection, mut said) = match in_time(open(client)) {
        Ok(connection) => (connection, Ok(Vec::new())),
        Err(error) => return drop(answer.send(Err(error))),
    };
    // Whoever has given up does not wait for it.
    while answer.send(said).is_ok() {
        let Ok(question) = asked.recv() else { return };
        said = in_time(exchange(&mut connection, &question));
    }
}

/// A connection to a node that answers a question within a time.
pub(super) fn open(client: &Client) -> RedisResult<Connection> {
    let connection = client.get_connection_with_timeout(PART_MAX)?;
    connection.set_read_timeout(Some(PART_MAX))?;
    connection.set_write_timeout(Some(PART_MAX))?;
    Ok(connection)
}

/// Answers are read one by one, and nothing is read after the first that is an error or does not come: the library's own
/// pipelines wait for every further answer of a node that hangs.
fn exchange(connection: &mut Connection, question: &Question) -> RedisResult<Vec<Value>> {
    connection.send_packed_command(&question.commands)?;
    let mut read = Vec::with_capacity(question.answers);
    while read.len() < question.answers {
        let value = connection.recv_response()?;
        let is_error = matches!(value, Value::ServerError(_));
        read.push(value);
        if is_error {
            break;
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_come_in_time_is_told_as_such_and_all_else_as_it_is() {
        for (kind, says) in [
            (io::ErrorKind::WouldBlock, "no answer within 2 s"),
            (io::ErrorKind::TimedOut, "no answer within 2 s"),
            (io::ErrorKind::ConnectionReset, "connection reset"),
        ] {
            let error = in_time::<()>(Err(io::Error::from(kind).into())).unwrap_err();
            assert!(error.to_string().contains(says), "{kind}: {error}");
        }
        assert!(ended().is_timeout());
    }
}
