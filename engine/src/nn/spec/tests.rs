use super::*;
use crate::nn::LoraConfig;

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
    let lstm = |dropout| LayerSpec::Lstm {
        hidden: 8,
        layers: 2,
        coupled: false,
        dropout,
        bidirectional: true,
        projection: None,
    };
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
    let conv = LayerSpec::Conv2d(Conv2dConfig::new(2, [3, 1]).padding([1, 0]).bias(false));
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

fn decoder(lora: Option<LoraConfig>, tied: bool) -> ModelSpec {
    ModelSpec::decoder(11, 8, DecoderConfig::new(2, 2, 4, 12).lora(lora), tied)
}

#[test]
fn adapters_lie_behind_all_other_parameters_and_change_none_of_them() {
    let plain = decoder(None, true).build().unwrap().0;
    let spec = decoder(Some(LoraConfig::new(2)), true);
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<ModelSpec>(&json).unwrap(), spec);
    let adapted = spec.build().unwrap().0;
    let names = |parameters: &Parameters| -> Vec<_> {
        parameters.iter().map(|p| (p.name.to_string(), p.shape.clone(), p.offset)).collect()
    };
    let (plain, adapted) = (names(&plain), names(&adapted));
    assert_eq!(adapted[..plain.len()], plain);
    let added: Vec<_> =
        adapted[plain.len()..].iter().map(|(name, shape, _)| (&name[..], shape)).collect();
    assert_eq!(added.len(), 8);
    assert_eq!(added[0], ("lora.model.layers.0.self_attn.q_proj.lora_A.weight", &vec![2, 8]));
    assert_eq!(added[3], ("lora.model.layers.0.self_attn.v_proj.lora_B.weight", &vec![8, 2]));
    let error = decoder(Some(LoraConfig::new(9)), true).build().unwrap_err().to_string();
    assert_eq!(error, "rank of model.layers.0.self_attn.q_proj.weight is 9, expected 1 to 8");
}

#[test]
fn heads_are_tied_to_an_embedding_of_their_width() {
    let mut spec = decoder(None, true);
    assert!(spec.build().unwrap().0.get("lm_head.weight").is_err());
    assert!(decoder(None, false).build().unwrap().0.get("lm_head.weight").is_ok());
    let linear = LayerSpec::Linear { outputs: 6, activation: Activation::Identity };
    spec.layers.insert(2, ("narrow".into(), linear));
    assert!(spec.build().unwrap_err().to_string().contains("layer lm_head"));
    spec.layers[3].1 = LayerSpec::LanguageModelHead { tied: false };
    assert!(spec.build().is_ok());
    spec.input = Input::Features { width: 8 };
    spec.layers.remove(0);
    assert!(spec.build().unwrap_err().to_string().contains("layer lm_head"));
}

#[test]
fn resnet18_has_torchvisions_parameters() {
    let spec = ModelSpec::resnet18(3, [224, 224], 1000);
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<ModelSpec>(&json).unwrap(), spec);
    let (parameters, _) = spec.build().unwrap();
    let (running, trained): (Vec<_>, Vec<_>) =
        parameters.iter().partition(|p| p.name.contains(".running_"));
    let count = |some: &[&Param]| some.iter().map(|p| p.len()).sum::<usize>();
    // What torchvision publishes of it, and two moments of each of 4,800 channels.
    assert_eq!((count(&trained), count(&running)), (11_689_512, 9_600));
    let shape = |name: &str| parameters.get(name).unwrap().shape.clone();
    assert_eq!(shape("layer2.0.downsample.0.weight"), [128, 64, 1, 1]);
    assert_eq!(shape("layer4.1.bn2.running_var"), [512]);
    assert!(spec.has_running_moments() && !ModelSpec::mlp(3, &[4], 2).has_running_moments());
    // Channels of a sequence are no channels of samples.
    let input = Input::Tokens { vocabulary: 5 };
    let layers = vec![
        ("e".into(), LayerSpec::Embedding { dimension: 4 }),
        ("n".into(), LayerSpec::BatchNorm),
    ];
    let error = ModelSpec { input, layers }.build().unwrap_err().to_string();
    assert!(error.contains("layer n"), "{error}");
}

/// A description comes from others: what no graph can compute is refused where the layer has its name.
#[test]
fn convolutions_that_can_not_be_are_refused() {
    let of = |kind: &str, fields: &str| {
        let conv = format!(r#"{{"outputs":4,"kernel":3,"stride":1,"padding":1{fields}}}"#);
        let layers = format!(r#"[["odd",{{"{kind}":{conv}}}],["flat","flatten"]]"#);
        let input = r#"{"image":{"channels":4,"height":5,"width":5}}"#;
        let spec = format!(r#"{{"input":{input},"layers":{layers}}}"#);
        serde_json::from_str::<ModelSpec>(&spec).unwrap().build().map(|_| ())
    };
    let of_both = |fields: &str| ["conv2d", "conv_transpose2d"].map(|kind| of(kind, fields));
    assert!(of_both(r#","groups":2,"dilation":2"#).iter().all(|built| built.is_ok()));
    for fields in [r#","groups":0"#, r#","groups":3"#, r#","dilation":0"#] {
        for refused in of_both(fields) {
            let told = refused.unwrap_err().to_string();
            assert!(told.contains("odd"), "{fields}: {told}");
        }
    }
    assert!(of("conv2d", r#","output_padding":1"#).unwrap_err().to_string().contains("odd"));
    assert!(of("conv_transpose2d", r#","output_padding":1"#).is_err());
    assert!(of_both(r#","dilation":4294967296"#).iter().all(|built| built.is_err()));
}
