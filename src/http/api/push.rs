//! The calls that end in the log: push, batch, kick.
//!
//! Invariants: an answer of success is given only for a record that the queue has accepted; a bad line of a batch
//! does not hurt the others, and answers come in the order of the lines.

use http::StatusCode;

use super::{
    Api, MISPLACED_REPLY, answer,
    call::{Call, bad_request_of, check_pid},
    refused,
};
use crate::{
    clock,
    http::message::{Fault, Head, Response},
    metrics::Count,
    model::{FromCore, Pid, Record, RecordId, Refusal, Reply},
    protocol::push,
    traces::Way,
};

const TOO_MANY_LINES: Fault =
    Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the batch has too many lines; send several");
const NO_LINES: Fault = Fault::bad_request("the batch has no lines");

impl Api {
    /// `POST /ws/push`
    pub(super) async fn push(&self, pid: &Pid, call: &Call<'_>, head: &Head) -> Result<Response, Fault> {
        let record = self.record_of(pid, call)?;
        let bytes = record.payload_bytes();
        let id = self.submit_pushes(vec![record], head).await?.pop().ok_or(MISPLACED_REPLY)?.map_err(refused)?;
        Ok(Response::success(self.accepted(id, bytes)))
    }

    fn record_of(&self, pid: &Pid, call: &Call<'_>) -> Result<Record, Fault> {
        let limits = self.limits();
        let limits = &limits.frames;
        let record = match call.json() {
            Some(body) => {
                check_pid(pid, body)?;
                push::from_json_and_params(pid, body, |name| call.param(name), limits)
            }
            None => push::from_params(pid, |name| call.param(name), limits),
        };
        record.map_err(bad_request_of)
    }

    /// `POST /v1/kick`
    pub(super) async fn kick(&self, pid: &Pid, call: &Call<'_>) -> Result<Response, Fault> {
        let limits = self.limits();
        let limits = &limits.frames;
        let record = match call.json() {
            Some(body) => {
                check_pid(pid, body)?;
                push::kick_from_json_and_params(pid, body, |name| call.param(name), limits)
            }
            None => push::kick_from_params(pid, |name| call.param(name), limits),
        };
        let record = record.map_err(bad_request_of)?;
        let id = self.submit(vec![record]).await?.pop().ok_or(MISPLACED_REPLY)?.map_err(refused)?;
        Ok(Response::success(answer::accepted(id, 0, 0)))
    }

    /// `POST /ws/push/batch`: a line of the answer for each line that is not blank.
    pub(super) async fn push_batch(&self, pid: &Pid, call: &Call<'_>, head: &Head) -> Result<Response, Fault> {
        let mut lines = self.lines(pid, call.body)?;
        let records: Vec<Record> = lines.iter_mut().filter_map(Line::take).collect();
        let results = if records.is_empty() { Vec::new() } else { self.submit_pushes(records, head).await? };
        let mut results = results.into_iter();
        let text: String = lines.into_iter().map(|line| self.line_answer(line, &mut results)).collect();
        Ok(Response::new(StatusCode::OK, "application/x-ndjson", text))
    }

    fn lines(&self, pid: &Pid, body: &[u8]) -> Result<Vec<Line>, Fault> {
        let lines_max = self.limits().http.batch_lines_max;
        let texts = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
        let texts: Vec<&[u8]> = texts.take(lines_max + 1).collect();
        match texts.len() {
            0 => Err(NO_LINES),
            lines if lines > lines_max => Err(TOO_MANY_LINES),
            _ => Ok(texts.into_iter().map(|text| self.line(pid, text)).collect()),
        }
    }

    fn line(&self, pid: &Pid, text: &[u8]) -> Line {
        let record = check_pid(pid, text)
            .and_then(|()| push::from_json(pid, text, &self.limits().frames).map_err(bad_request_of));
        match record {
            Ok(record) => Line::Good { bytes: record.payload_bytes(), record: Some(record) },
            Err(fault) => {
                self.counters.inc(Count::PushesInvalid);
                Line::Bad(fault)
            }
        }
    }

    fn line_answer(&self, line: Line, results: &mut impl Iterator<Item = Result<RecordId, Refusal>>) -> String {
        let bytes = match line {
            Line::Bad(fault) => return answer::line(Err((fault.err, &fault.msg))),
            Line::Good { bytes, .. } => bytes,
        };
        match results.next().unwrap_or(Err(Refusal::Unknown)) {
            Ok(id) => answer::line(Ok(self.accepted(id, bytes))),
            Err(refusal) => answer::line(Err((refusal.err(), refusal.message()))),
        }
    }

    fn accepted(&self, id: RecordId, bytes: usize) -> String {
        let guidance = self.limits().writing.payload_guidance_bytes;
        if bytes > guidance {
            self.counters.inc(Count::PayloadsOverGuidance);
        }
        answer::accepted(id, bytes, guidance)
    }

    /// Submits pushes, stamped with their time and, if they have one, their trace.
    async fn submit_pushes(
        &self,
        mut records: Vec<Record>,
        head: &Head,
    ) -> Result<Vec<Result<RecordId, Refusal>>, Fault> {
        let received_us = clock::unix_us();
        let traceparent = head.headers.get("traceparent").and_then(|value| value.to_str().ok());
        let spans = self.stamper.stamp(&mut records, Way::Http, received_us, traceparent);
        let results = self.submit(records).await;
        let answers = results.as_deref().unwrap_or(&[Err(Refusal::Unknown)]);
        self.stamper.answered(answers, received_us, &spans, clock::unix_us());
        results
    }

    async fn submit(&self, records: Vec<Record>) -> Result<Vec<Result<RecordId, Refusal>>, Fault> {
        let count = records.len();
        match self.ask(|ticket| FromCore::Submit { ticket, records }).await? {
            Reply::Submitted(results) if results.len() == count => Ok(results),
            _ => Err(MISPLACED_REPLY),
        }
    }
}

/// A line of a batch.
enum Line {
    Good { bytes: usize, record: Option<Record> },
    Bad(Fault),
}

impl Line {
    fn take(&mut self) -> Option<Record> {
        match self {
            Line::Good { record, .. } => record.take(),
            Line::Bad(_) => None,
        }
    }
}
