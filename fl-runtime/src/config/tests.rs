use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse("tern.toml", text)
}

#[test]
fn the_template_is_a_configuration() {
    let config = parse(&template().unwrap()).unwrap_or_else(|error| panic!("{error}"));
    assert!(config.run.is_some() && config.server.is_some() && config.client.is_some());
}

#[test]
fn files_of_other_versions_and_keys_are_refused_by_name() {
    let error = parse("version = 2\n[another]\nkey = 1\n").unwrap_err().to_string();
    assert!(error.starts_with("tern.toml:1:") && error.contains("version 2, expected 1"));
    let old = template().unwrap().replace("learning_rate = 0.5", "rate = 0.5");
    let error = parse(&old).unwrap_err().to_string();
    assert!(error.contains("`rate`") && error.contains("`learning_rate`"), "{error}");
    assert_eq!(parse("").unwrap().version, VERSION);
}

#[test]
fn every_configuration_has_a_token_of_its_own() {
    let token = || {
        let config = parse(&template().unwrap()).unwrap();
        let server = config.server.unwrap().admission.token.unwrap();
        assert_eq!(Some(&server), config.client.unwrap().token.as_ref());
        server
    };
    assert!(token().len() == 32 && token() != token());
    let error = parse(TEMPLATE).unwrap_err();
    assert_eq!(error.key, "server.admission.token");
    assert!(error.message.contains("one of your own"), "{error}");
}

/// The template with what is commented out (`#key = value`, `#[table]`) where it stands.
fn every_option() -> String {
    let is_option = |line: &str| {
        line.strip_prefix('#').is_some_and(|rest| !rest.is_empty() && !rest.starts_with(' '))
    };
    let template = template().unwrap();
    assert!(template.lines().filter(|line| is_option(line)).count() > 10);
    // The one that isn't for secure runs.
    let lines = template.lines().filter(|line| !line.starts_with("#max_norm"));
    let lines = lines.map(|line| if is_option(line) { &line[1..] } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_templates_comments_are_options() {
    parse(&every_option()).unwrap_or_else(|error| panic!("{error}"));
}

/// Puts a key that nothing has into one of the tables below a value, by its number in order.
fn intrude(value: &mut toml::Value, number: &mut usize) -> bool {
    match value {
        toml::Value::Table(table) if *number == 0 => {
            table.insert("intruder".into(), true.into());
            true
        }
        toml::Value::Table(table) => {
            *number -= 1;
            table.iter_mut().any(|(_, value)| intrude(value, number))
        }
        toml::Value::Array(list) => list.iter_mut().any(|value| intrude(value, number)),
        _ => false,
    }
}

#[test]
fn an_unknown_key_is_refused_in_every_table() {
    let all = every_option();
    let swapped = |from: &str, to: &str| {
        assert!(all.contains(from), "{from}");
        all.replace(from, to)
    };
    let image = [
        ("tokens = { vocabulary = 97 }", "image = { channels = 1, height = 8, width = 8 }"),
        (
            "embedding = { dimension = 16 }",
            "conv2d = { outputs = 2, kernel = 3, stride = 1, padding = 0 }",
        ),
        ("lstm = { hidden = 128, layers = 1 }", "max_pool2d = { kernel = 2, stride = 2 }"),
        ("linear = { outputs = 97 }", "dropout = { p = 0.1 }"),
    ];
    let image = image.iter().fold(all.clone(), |text, (from, to)| text.replace(from, to));
    // What is in the template, and what may be there instead.
    let files = [
        all.clone(),
        swapped("sgd = { momentum = 0.0, weight_decay = 0.0, nesterov = false }", ADAM),
        swapped("every = { factor = 0.99, rounds = 1 }", "after = { factor = 0.9, rounds = [3] }"),
        swapped(
            "[run.strategy.average]\nlearning_rate = 1.0",
            "[run.strategy.yogi]\nlearning_rate = 0.1\nbeta1 = 0.9\nbeta2 = 0.99\ntau = 0.001",
        ),
        swapped(
            "[client.data.text]\npath = \"data\"\ntokens = \"ascii\"\n# Tokens of a window.\nsteps = 64",
            "[client.data.csv]\npath = \"data\"\nlabel = \"class\"",
        ),
        image,
    ];
    for (at, text) in files.iter().enumerate() {
        let good = toml::from_str(text).unwrap_or_else(|error| panic!("{at}: {error}"));
        let good = toml::Value::Table(good);
        let mut tables = 0;
        loop {
            let mut bad = good.clone();
            if !intrude(&mut bad, &mut { tables }) {
                break;
            }
            tables += 1;
            let bad = toml::to_string(&bad).unwrap();
            let error = parse(&bad).expect_err(&bad);
            assert!(error.message.contains("intruder"), "{error}\nin\n{bad}");
        }
        assert!(tables > 20, "{tables}");
    }
}

const ADAM: &str = "adam = { beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0.0 }";

#[test]
fn a_metric_that_nobody_measures_is_refused_with_those_there_are() {
    let text = every_option();
    let wrong = text.replace("metric = \"loss\"", "metric = \"speed\"");
    let error = parse(&wrong).unwrap_err();
    assert_eq!(
        (error.key.as_str(), error.text.as_str()),
        ("run.evaluation.metric", "metric = \"speed\"")
    );
    assert_eq!(
        error.message,
        "\"speed\", expected one of evaluation.metrics: accuracy, loss, top3"
    );
    parse(&text.replace("metric = \"loss\"", "metric = \"accuracy\"")).unwrap();
    // Trainers of programs name their own.
    let start = wrong.find("[run.model.layers]").unwrap();
    let end = wrong.find("[run.cohort]").unwrap();
    let tensors = "[[run.model.tensors]]\nname = \"w\"\nshape = [3]\n";
    let own = wrong[..start].to_owned() + tensors + &wrong[end..];
    assert_eq!(parse(&own).unwrap_err().key, "run.evaluation.metric");
    parse(&own.replace("\"top3\"]", "\"speed\"]")).unwrap();
}

#[test]
fn names_of_a_server_are_hosts_without_more() {
    let named = |host: &str| {
        let text = template().unwrap();
        let hosts = format!("hosts = [\"{host}\"]\nlisten =");
        parse(&text.replacen("listen =", &hosts, 1)).map(|config| config.server.unwrap().hosts)
    };
    for host in ["a.example", "a.example:8443", "10.0.0.1:80", "[::1]:8443", "[::1]"] {
        assert_eq!(named(host).unwrap(), [host]);
    }
    for host in ["https://a.example", "a.example:port", "a b", "", "*.a.example", "a.example/b"] {
        assert_eq!(named(host).unwrap_err().key, "server.hosts", "{host}");
    }
}

#[test]
fn origins_of_pages_have_no_path() {
    let named = |origin: &str| {
        let text = template().unwrap();
        let origins = format!("origins = [\"{origin}\"]\nlisten =");
        parse(&text.replacen("listen =", &origins, 1)).map(|config| config.server.unwrap())
    };
    assert_eq!(named("https://app.example").unwrap().origins().unwrap().len(), 1);
    for origin in ["app.example", "*", "https://app.example/page"] {
        let error = named(origin).unwrap_err();
        assert_eq!(error.key, "server.origins", "{origin}");
        assert!(error.to_string().contains(origin), "{error}");
    }
}

#[test]
fn values_out_of_range_are_shown_with_their_line() {
    let template = template().unwrap();
    let line = |key: &str| {
        let found = template.lines().position(|l| l.starts_with(&format!("{key} =")));
        found.unwrap_or_else(|| panic!("{key}")) + 1
    };
    for (key, value, path, expected) in [
        ("rounds", "0", "run.rounds", "1 to"),
        ("minimum", "4000", "run.cohort.minimum", "1 to"),
        ("listen", "\"somewhere\"", "server.listen", "socket address"),
        ("server", "\"host\"", "client.server", "https://"),
        ("steps", "0", "client.data.text.steps", "1 to 65536"),
        ("poll_seconds", "0.0", "server.limits.poll_seconds", "more than 0"),
        ("token", "\"short\"", "server.admission.token", "at least 16"),
    ] {
        let start = format!("{key} =");
        let swap = |l: &str| match l.starts_with(&start) {
            true => format!("{key} = {value}\n"),
            false => format!("{l}\n"),
        };
        let text: String = template.lines().map(swap).collect();
        let error = parse(&text).unwrap_err();
        assert_eq!((error.key.as_str(), error.line), (path, line(key)), "{error}");
        assert!(error.message.contains(expected), "{error}");
    }
    for (section, expected) in [("client", "below 1"), ("server", "1 to 65536")] {
        let evaluation = match section {
            "client" => "evaluation = { held_out = 1.0 }",
            _ => "evaluation = { text = { path = \"held-out\", steps = 0 } }",
        };
        let header = format!("[{section}]\n");
        let text = template.replace(&header, &format!("{header}{evaluation}\n"));
        let error = parse(&text).unwrap_err();
        assert!(error.key.starts_with(&format!("{section}.evaluation")), "{error}");
        assert!(error.message.contains(expected), "{error}");
    }
    // Others can reach it, and it has no certificate.
    let text = template.replace("[server.tls]", "#").replace("certificate =", "#");
    let error = parse(&text.replace("\nkey =", "\n#")).unwrap_err();
    assert_eq!((error.key.as_str(), error.line), ("server.listen", line("listen")), "{error}");
    assert!(error.message.contains("[server.tls]"), "{error}");
    let text = template.replace("rounds =", "round =");
    let error = parse(&text).unwrap_err();
    assert!(error.message.contains("unknown field `round`"), "{error}");
}

#[test]
fn paths_are_relative_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tern.toml");
    std::fs::write(&path, template().unwrap()).unwrap();
    let config = Config::load(&path).unwrap();
    assert!(config.server.unwrap().folder.starts_with(folder.path()));
    assert!(config.client.unwrap().folder.starts_with(folder.path()));
    let error = Config::load(&folder.path().join("none.toml")).unwrap_err().to_string();
    assert!(error.contains("none.toml"), "{error}");
}
