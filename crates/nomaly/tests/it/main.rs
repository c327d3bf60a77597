//! Runs the examples, and whole fits on every device that a test can have.

// Their `main` functions are unused here.
#![allow(dead_code)]

#[cfg(feature = "candle")]
mod devices;

mod fit {
    include!("../../examples/fit.rs");

    #[test]
    fn a_model_is_fitted_and_written() {
        run(std::iter::empty()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (images, model) = (folder.path().join("good"), folder.path().join("part.nomaly"));
        std::fs::create_dir(&images).unwrap();
        for (number, sample) in data::demo("brick", 0).unwrap().train.iter().enumerate() {
            let image = sample.source.load(&nomaly::Limits::default()).unwrap();
            image.save(images.join(format!("{number}.png"))).unwrap();
        }
        let args = [images.clone().into_os_string(), model.clone().into_os_string()];
        run(args.into_iter()).unwrap();
        let image = images.join("3.png").into_os_string();
        super::score::run(vec![model.into_os_string(), image]).unwrap();
        assert!(run([folder.path().join("absent").into_os_string(), "x".into()].into_iter()).is_err());
    }
}

mod score {
    include!("../../examples/score.rs");

    #[test]
    fn images_are_scored_one_after_another() {
        run(Vec::new()).unwrap();
        assert!(run(vec!["absent.nomaly".into()]).is_err());
    }
}

mod evaluate {
    include!("../../examples/evaluate.rs");

    #[test]
    fn a_method_is_measured() {
        run(None).unwrap();
    }
}

mod own_scorer {
    include!("../../examples/own_scorer.rs");

    #[test]
    fn a_scorer_is_fitted_and_restored() {
        main().unwrap();
    }
}

mod own_method {
    include!("../../examples/own_method.rs");

    #[test]
    fn a_method_is_fitted_and_scores() {
        main().unwrap();
    }
}

mod own_autoencoder {
    include!("../../examples/own_autoencoder.rs");

    #[test]
    fn an_autoencoder_is_trained_and_finds_defects() {
        assert_eq!(run(60).unwrap(), [12, 12]);
    }
}
