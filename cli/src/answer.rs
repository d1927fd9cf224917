//! `answer`: answers to a question from contexts.

use rachis::Session;
use rachis_text::{Align, Answer, AnswerOptions, Impossible, QuestionAnswerer, visible};
use serde_json::{Value, json};

use crate::args::{AnswerArgs, BadUsage};
use crate::requests::{self, Request, only, optional, required};
use crate::texts::CodePoints;
use crate::{Result, print};

pub fn answer(args: &AnswerArgs) -> Result<()> {
    let (preset, model) = args.common.open(args.common.model()?)?;
    let answerer = QuestionAnswerer::load(&preset, model)?;
    let pool = args.common.pool()?;
    let mut session = Session::new(args.common.ctx(pool.as_ref())?);
    if let Some(source) = &args.input.requests {
        return requests::answer(source, |request| reply(&answerer, &mut session, request));
    }
    let question = args.question.as_ref().ok_or_else(|| BadUsage("--question is missing".to_owned()))?;
    let options = AnswerOptions::new().with_top_k(args.top_k);
    let mut all = Vec::new();
    for context in args.input.read()? {
        let answers = answerer.answer(&mut session, question, &context, options)?;
        if args.common.json {
            all.push(answers.iter().map(|answer| describe(&context, answer)).collect::<Value>());
            continue;
        }
        for answer in answers {
            print(format_args!("{:>10.4}  {}\n", answer.score, visible(&answer.answer)))?;
        }
    }
    if args.common.json { print(format_args!("{}\n", json!({ "answers": all }))) } else { Ok(()) }
}

fn reply(answerer: &QuestionAnswerer, session: &mut Session<'_>, request: &Request) -> Result<Value> {
    only(
        request,
        &[
            "question",
            "context",
            "top_k",
            "max_answer_len",
            "max_seq_len",
            "doc_stride",
            "max_question_len",
            "handle_impossible_answer",
            "align_to_words",
        ],
    )?;
    let (question, context): (String, String) =
        (required(request, "question")?, required(request, "context")?);
    // Of no effect with the tokenizers of the library, as in the pipeline.
    optional::<usize>(request, "max_question_len")?;
    let mut options = AnswerOptions::new();
    options.top_k = optional(request, "top_k")?.unwrap_or(options.top_k);
    options.max_answer_len = optional(request, "max_answer_len")?.unwrap_or(options.max_answer_len);
    options.max_seq_len = optional(request, "max_seq_len")?;
    options.doc_stride = optional(request, "doc_stride")?;
    if optional(request, "handle_impossible_answer")?.unwrap_or(false) {
        options = options.with_impossible(Impossible::Accepted);
    }
    if optional(request, "align_to_words")? == Some(false) {
        options = options.with_align(Align::Tokens);
    }
    let answers = answerer.answer(session, &question, &context, options)?;
    let mut answers = answers.iter().map(|answer| describe(&context, answer));
    // One answer is no list.
    Ok(match answers.len() {
        1 => answers.next().unwrap_or_default(),
        _ => answers.collect(),
    })
}

/// An answer by the pipeline's keys, with places in code points.
fn describe(context: &str, answer: &Answer) -> Value {
    let mut places = CodePoints::of(context);
    json!({
        "answer": answer.answer,
        "score": answer.score,
        "start": places.before(answer.span.start),
        "end": places.before(answer.span.end),
    })
}
