//! Servers whose disk was harmed while they were away.

use tern_fl::Turn;
use tern_fl::server::federation::{Federation, Repair};

use super::World;
use crate::disk::{self, Harm, State};

impl World {
    /// The server's process ends, with nothing done at its end; its disk may be harmed.
    pub(super) fn kill(&mut self) {
        let harmed = self.random.chance(self.weather.harm);
        // The loss of a write that failed half-way is noticed by nobody, nor was anybody told of it.
        let server = self.server.as_ref().filter(|server| harmed && server.is_settled());
        let state = server.map(State::of);
        // What is on the disk before anything is done at the end of the process.
        let whole = state.as_ref().map(|_| disk::copy(&self.folder));
        self.close();
        if let Some((state, whole)) = state.zip(whole) {
            let mut files = whole.clone();
            let (what, name) = disk::harm(&mut self.random, &mut files, &self.earlier);
            self.say(|| format!("{}: {what}", name.display()));
            disk::put(&self.folder, &files);
            self.harm = Some(Harm { what, name, whole, state });
        }
    }

    /// A server that starts after harm has all that it had.
    pub(super) fn unharmed(&mut self, server: Federation, harm: &Harm) -> Federation {
        let (found, what) = (State::of(&server), format!("{}: {}", harm.name.display(), harm.what));
        assert_eq!(found.rounds, harm.state.rounds, "{what}");
        // But for updates that it asks for again.
        if harm.name.starts_with("uploads") {
            let name = harm.name.file_name().unwrap().to_str().unwrap();
            let mut parts = name.splitn(3, '-');
            let mut number = || parts.next().unwrap().parse().unwrap();
            let turn = Turn::new(number(), number());
            self.oracle.harmed(parts.next().unwrap().parse().unwrap(), turn);
        } else {
            assert_eq!(found.open, harm.state.open, "{what}");
        }
        self.strangers.check(&server);
        self.summary.note("unharmed");
        server
    }

    /// One that doesn't start named the harm and changed nothing: the files are had back from
    /// elsewhere, or what is left of them is made to do.
    pub(super) fn mended(&mut self, error: &str, harm: &Harm) -> Federation {
        self.say(|| format!("it doesn't start: {error}"));
        let file = harm.name.file_name().unwrap().to_str().unwrap();
        let named = error.contains("journal") || error.contains(file);
        let told = error.contains("tern repair") || error.contains("no space");
        assert!(named && told, "{}: {}: {error}", file, harm.what);
        self.summary.note("named");
        let open = |world: &Self| {
            let options = world.options(u64::MAX);
            Federation::open(&world.folder, &world.setup.plan, &world.initial, options).unwrap()
        };
        if self.random.chance(500) {
            let options = self.options(u64::MAX);
            let repair =
                Repair::examine(&self.folder, &self.setup.plan, &self.initial, &options).unwrap();
            assert!(!repair.damage.is_empty(), "{error}");
            if repair.is_possible() {
                self.say(|| repair.to_string());
                repair.apply().unwrap();
                drop(repair);
                let mut server = open(self);
                let time = self.time();
                for member in &self.members {
                    server.enroll(time, member.client, member.token.as_deref()).unwrap();
                }
                self.strangers.forget();
                // An earlier round is another run to its clients, and so is one without the best
                // model, which a repair says is lost.
                let found = State::of(&server);
                // What clients were told of an end stays true, whatever is lost.
                if harm.state.finished {
                    assert!(found.finished, "{} {}: {error}", harm.name.display(), harm.what);
                    assert_eq!(found.told, harm.state.told, "{}", harm.name.display());
                    self.summary.note("still over");
                }
                if (&found.rounds, found.best) == (&harm.state.rounds, harm.state.best) {
                    if found.open != harm.state.open {
                        // Of a journal that is older than an earlier repair, too.
                        let round = found.rounds.last().map_or(0, |(round, _)| round.round);
                        self.oracle.lost_after(round);
                    }
                    self.summary.note("repaired");
                    return server;
                }
            }
        }
        disk::put(&self.folder, &harm.whole);
        let server = open(self);
        assert_eq!(State::of(&server), harm.state, "{error}");
        server
    }
}
