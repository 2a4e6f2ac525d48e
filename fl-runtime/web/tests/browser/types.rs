//! The types of TypeScript have what the engine takes.

use tern_engine::nn::{LayerSpec, ModelSpec};

const MODEL: &str = include_str!("../../src/model.rs");

/// What an enum takes, by what it says of something else.
fn variants<T: serde::de::DeserializeOwned>(json: &str) -> Vec<String> {
    let error = serde_json::from_str::<T>(json).err().expect("no such variant").to_string();
    let (_, listed) = error.split_once("expected one of ").expect("a list");
    let listed = listed.split(" at line").next().unwrap_or_default();
    listed.split(", ").map(|name| name.trim_matches('`').to_owned()).collect()
}

#[test]
fn every_layer_and_input_has_a_type() {
    let layers = variants::<LayerSpec>("\"none\"");
    let inputs = variants::<ModelSpec>(r#"{ "input": { "none": {} }, "layers": [] }"#);
    let linear = r#"{ "linear": { "outputs": 1, "activation": "none" } }"#;
    let activations = variants::<LayerSpec>(linear);
    assert!(layers.len() > 10 && inputs.len() == 3 && activations.len() > 7);
    for name in layers.iter().chain(&inputs) {
        let typed = [format!("{{ {name}: "), format!("\"{name}\"")];
        assert!(typed.iter().any(|typed| MODEL.contains(typed)), "no type for {name}");
    }
    for name in activations {
        assert!(MODEL.contains(&format!("\"{name}\"")), "no type for {name}");
    }
}
