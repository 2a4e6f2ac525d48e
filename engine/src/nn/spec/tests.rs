use super::*;

#[test]
fn a_spec_survives_json_and_builds_the_same_parameters() {
    let mut spec = ModelSpec::language_model(90, 8, 256, 2);
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<ModelSpec>(&json).unwrap(), spec);
    let (parameters, _) = spec.build().unwrap();
    // FedAvg's Shakespeare model (McMahan et al. 2017, section 3).
    assert_eq!(parameters.count(), 822_570);
    spec.layers.swap(0, 1);
    assert!(spec.build().unwrap_err().to_string().contains("layer lstm"));
}

#[test]
fn a_dropout_that_leaves_nothing_is_refused_with_its_range() {
    let lstm = |dropout| LayerSpec::Lstm { hidden: 8, layers: 2, coupled: false, dropout };
    for (p, taken) in [(0.0, true), (0.99, true), (1.0, false), (-0.1, false)] {
        for layer in [LayerSpec::Dropout { p }, lstm(p)] {
            let input = Input::Features { width: 8 };
            let spec = ModelSpec { input, layers: vec![("drop".into(), layer)] };
            assert_eq!(spec.build().is_ok(), taken, "{layer:?}");
            if let Err(error) = spec.build() {
                let expected = format!("dropout of drop is {p}, expected 0 up to but not 1");
                assert!(error.to_string().contains(&expected), "{error}");
            }
        }
    }
}

#[test]
fn unknown_keys_are_named() {
    for json in [
        r#"{"input":{"features":{"width":2}},"layers":[],"speed":1}"#,
        r#"{"input":{"features":{"width":2,"speed":1}},"layers":[]}"#,
        r#"{"input":{"features":{"width":2}},"layers":[["0",{"linear":{"outputs":1,"speed":1}}]]}"#,
    ] {
        let error = serde_json::from_str::<ModelSpec>(json).unwrap_err().to_string();
        assert!(error.contains("unknown field `speed`"), "{error}");
    }
}

#[test]
fn windows_are_written_by_a_side_or_by_two() {
    let json = r#"{"input":{"image":{"channels":1,"height":6,"width":9}},"layers":[
        ["0",{"conv2d":{"outputs":2,"kernel":[3,1],"stride":1,"padding":[1,0],"bias":false}}],
        ["1",{"average_pool2d":{"kernel":2,"stride":[2,3],"padding":1}}],
        ["2","flatten"]]}"#;
    let spec: ModelSpec = serde_json::from_str(json).unwrap();
    let conv = LayerSpec::Conv2d {
        outputs: 2,
        kernel: [3, 1].into(),
        stride: 1.into(),
        padding: [1, 0].into(),
        bias: false,
        activation: Activation::Identity,
    };
    assert_eq!(spec.layers[0].1, conv);
    let again = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<ModelSpec>(&again).unwrap(), spec);
    assert!(again.contains(r#""kernel":[3,1],"stride":1"#), "{again}");
    let (parameters, _) = spec.build().unwrap();
    // [2, 6, 9], then [2, 4, 4].
    assert_eq!(parameters.iter().map(|p| p.shape.clone()).collect::<Vec<_>>(), [[2, 1, 3, 1]]);
    let error = serde_json::from_str::<ModelSpec>(&json.replace("[3,1]", "\"3\""));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("a number of pixels or [height, width]"), "{error}");
}

#[test]
fn unknown_activations_are_named() {
    let json = r#"{"input":{"features":{"width":2}},
        "layers":[["0",{"linear":{"outputs":1,"activation":"swish"}}]]}"#;
    let error = serde_json::from_str::<ModelSpec>(json).unwrap_err().to_string();
    assert!(error.contains("swish") && error.contains("relu"), "{error}");
}
