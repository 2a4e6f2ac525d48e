//! Blocking wrappers of the `async` methods: they wait on the calling thread.

use tern_shaders::state::StateRecord;

use super::{Activations, Losses, NotFinite};
use crate::device::{Data, Timing};
use crate::graph::Tensor;
use crate::{Choice, Plan, Result};

macro_rules! blocking {
    ($($(#[$meta:meta])* $name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $inner:ident;)+) => {
        impl Plan {
            $($(#[$meta])*
            #[doc = ""]
            #[doc = "# Errors"]
            #[doc = concat!("As [`Plan::", stringify!($inner), "`].")]
            pub fn $name(&mut self, $($arg: $ty),*) -> Result<$out> {
                let device = self.arena.device().clone();
                device.wait(self.$inner($($arg),*))
            })+
        }
    };
}

blocking! {
    /// [`Plan::prepare_async`], waiting.
    prepare() -> () = prepare_async;
    /// [`Plan::run_async`], waiting.
    run(steps: usize) -> Losses = run_async;
    /// [`Plan::forward_async`], waiting.
    forward() -> () = forward_async;
    /// [`Plan::backward_async`], waiting.
    backward() -> () = backward_async;
    /// [`Plan::save_async`], waiting.
    save() -> Activations = save_async;
    /// [`Plan::restore_async`], waiting.
    restore(activations: &Activations) -> () = restore_async;
    /// [`Plan::write_async`], waiting.
    write(tensor: Tensor, data: &Data) -> () = write_async;
    /// [`Plan::read_async`], waiting.
    read(tensor: Tensor) -> Data = read_async;
    /// [`Plan::read_f64_async`], waiting.
    read_f64(tensor: Tensor) -> Vec<f64> = read_f64_async;
    /// [`Plan::find_not_finite_async`], waiting.
    find_not_finite(replica: usize) -> Option<NotFinite> = find_not_finite_async;
    /// [`Plan::states_async`], waiting.
    states() -> Vec<StateRecord> = states_async;
    /// [`Plan::tune_async`], waiting.
    tune(again: bool) -> Vec<Choice> = tune_async;
    /// [`Plan::profile_async`], waiting.
    profile() -> Vec<Timing> = profile_async;
}
