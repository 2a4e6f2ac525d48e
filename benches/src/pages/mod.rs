//! Reports as people read them: pages, Markdown, what changed.

pub mod compare;
pub mod compilers;
pub mod html;
pub mod markdown;
pub mod view;

#[cfg(test)]
mod tests;
