//! The demo as real processes: a server that trains the teachers and answers, and each student a
//! client over TLS. A student sends samples and gets labels and what they cost.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tern_engine::Device;
use tern_fl::client::CallError;
use tern_fl::methods::teach::{Budget, Labels, Models, Spent, ask};
use tern_fl::server::http;

use super::data::Problem;
use super::lesson::{Faculty, Tutor, budget_file, compare, learn, service, teach};
use super::options::{Options, Scale, mechanisms};
use super::results::{Lesson, Student};
use crate::network::{FOUND, Place, Role};
use crate::report::Report;

/// Time between two questions to a server that has no teachers yet.
const ASK: Duration = Duration::from_millis(200);

/// What a service is called.
fn called(name: &str) -> String {
    name.to_lowercase()
}

/// What a process does that another one started.
pub fn take_part(
    role: Role,
    place: &Place,
    options: &Options,
    device: &Device,
    problem: &Problem,
) -> Result<()> {
    let (scale, seed) = (options.scale(), options.seed);
    match role {
        Role::Server => serve(place, &scale, seed, device, problem),
        Role::Client(number) => {
            let student = mechanisms(scale.teachers).into_iter().nth(number);
            let (name, mechanism) = student.context("a client without a mechanism")?;
            let mut tutor = Remote { place, number, name: called(name), spent: Spent::default() };
            let who = (name, mechanism);
            let own = Report::create(place.client(number))?;
            let folder = own.path("");
            let found = learn(device, problem, &scale, seed, &mut tutor, who, &folder)?;
            own.json(FOUND, &found).map(drop)
        }
    }
}

/// 2.1 to 2.3: trains the teachers, then answers until the one that started this process has
/// enough.
fn serve(
    place: &Place,
    scale: &Scale,
    seed: u32,
    device: &Device,
    problem: &Problem,
) -> Result<()> {
    let labels = mechanisms(scale.teachers).map(|(name, _)| Labels::new(&called(name)));
    let services = labels.iter().map(|labels| labels.clone() as Arc<dyn http::Service>);
    place.serve_while(services.collect(), None, || {
        let report = Report::create(place.server())?;
        let (teachers, faculty): (Models, Faculty) = teach(device, problem, scale, seed)?;
        report.json(FOUND, &faculty)?;
        let teachers = Arc::new(Mutex::new(teachers));
        let who = mechanisms(faculty.parts).into_iter().enumerate();
        for ((number, (name, mechanism)), labels) in who.zip(&labels) {
            let (who, folder) = ((number, name, mechanism), report.path(""));
            labels.open(service(teachers.clone(), who, problem, scale, seed, &folder)?);
        }
        Ok(())
    })
}

/// A server, as a student sees it.
struct Remote<'a> {
    place: &'a Place,
    number: usize,
    name: String,
    spent: Spent,
}

impl Tutor for Remote<'_> {
    fn labels(&mut self, samples: &[f32]) -> Result<Result<Vec<Option<u32>>, String>> {
        let name = &self.name;
        let answer = self.place.ask(self.number, async |http| {
            loop {
                match ask(http, name, samples).await {
                    Ok(answer) => return Ok(Ok(answer)),
                    Err(CallError::Refused { name, reason, .. }) if name == "budget" => {
                        return Ok(Err(reason));
                    }
                    Err(CallError::Busy { wait, .. }) => {
                        tokio::time::sleep(wait.unwrap_or(ASK)).await;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        })?;
        Ok(answer.map(|answer| {
            self.spent.epsilon = answer.epsilon;
            self.spent.queries += answer.labels.len() as u64;
            self.spent.answers += answer.labels.iter().flatten().count() as u64;
            answer.labels
        }))
    }

    fn spent(&self) -> Spent {
        self.spent
    }
}

/// Runs one seed of a problem as processes.
pub fn run(
    options: &Options,
    device: &Device,
    problem: &Problem,
    report: &Report,
    out: &mut dyn Write,
) -> Result<Lesson> {
    let (scale, seed) = (options.scale(), options.seed);
    let named = mechanisms(scale.teachers).map(|(name, _)| format!("The student of {name}"));
    let place = Place::create(&report.path("network"), named.len())?;
    let found: Vec<Option<Student>> = place.start_services("teacher-ensemble", &named, out)?;
    let server = place.server();
    let faculty: Faculty = place.found(&server)?;
    let mut students = Vec::new();
    for (found, (name, mechanism)) in found.into_iter().zip(mechanisms(faculty.parts)) {
        let Some(student) = found else { continue };
        // What a student isn't told: how many teachers there are, and what the votes were.
        let budget = Budget::open(&budget_file(&server, problem, name, seed), scale.limit)?;
        let epsilon_given_votes = budget.spent().given_votes;
        students.push(Student { mechanism, epsilon_given_votes, ..student });
    }
    ensure!(!students.is_empty(), "no student learned anything");
    writeln!(out, "{} processes over TLS.", named.len() + 1)?;
    compare(device, problem, &scale, seed, faculty, students)
}
