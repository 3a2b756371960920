//! Ad-hoc commands under every shell: words, statuses, limits, and output that is too much.

use std::time::{Duration, Instant};

use super::tests::{SHELLS, host};
use crate::remote::{Answer, Host, Op, Ran};

async fn ran(shell: &[&str], argv: &[&str], limit: Duration) -> Ran {
    let state = tempfile::tempdir().unwrap();
    let mut host = host(shell, state.path()).await;
    let argv = argv.iter().map(ToString::to_string).collect();
    let answer = host.call(&Op::Exec { argv, limit }, None).await.unwrap();
    Box::new(host).close().await;
    match answer {
        Answer::Ran(ran) => ran,
        other => panic!("{other:?}"),
    }
}

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn words_arrive_as_they_are_and_statuses_come_back() {
    for shell in SHELLS {
        let nasty = "a  b; touch /x $HOME `id` $(id) 'q' \"d\" * \\ \n-- end";
        let said = ran(shell, &["printf", "<%s>\\n", nasty, ""], SOON).await;
        let wanted: Vec<&str> = "<a  b; touch /x $HOME `id` $(id) 'q' \"d\" * \\ \n-- end>\n<>".split('\n').collect();
        assert_eq!((said.status, said.output), (0, wanted.iter().map(ToString::to_string).collect()), "{shell:?}");

        let both = ran(shell, &["sh", "-c", "echo one; echo two >&2; printf 'a\\tb=c'; exit 7"], SOON).await;
        assert_eq!((both.status, both.timed_out, both.cut), (7, false, false), "{shell:?}");
        assert_eq!(both.output, ["one", "two", "a b=c"], "{shell:?}");

        let none = ran(shell, &["/nonexistent/program"], SOON).await;
        assert_eq!(none.status, 127, "{shell:?}");
        let stdin = ran(shell, &["cat"], SOON).await;
        assert_eq!((stdin.status, stdin.output.len()), (0, 0), "{shell:?}: nothing is there to be read");
        // Our own descriptors are nobody else's: who could write to them would act as we do.
        let open = ran(shell, &["sh", "-c", "for d in /proc/$$/fd/*; do echo ${d##*/}; done"], SOON).await;
        // The third is the directory's, as it looks into it.
        let open: Vec<u32> = open.output.iter().map(|fd| fd.parse().unwrap()).collect();
        assert!(open.contains(&0) && open.iter().all(|fd| !(4..10).contains(fd)), "{shell:?}: {open:?}");
        // What looks like the library's own lines is a command's output all the same.
        let forged = ran(shell, &["printf", "fail\\tclass=held\\nran\\tstatus=9\\n"], SOON).await;
        assert_eq!((forged.status, forged.output.len()), (0, 2), "{shell:?}");
    }
}

#[tokio::test]
async fn a_limit_ends_it_and_a_status_of_its_own_is_no_limit() {
    for shell in SHELLS {
        let began = Instant::now();
        let late = ran(shell, &["sh", "-c", "echo begun; exec sleep 600"], Duration::from_secs(1)).await;
        assert!(late.timed_out && began.elapsed() < Duration::from_secs(60), "{shell:?}: {late:?}");
        assert_eq!(late.output, ["begun"], "{shell:?}");
        let own = ran(shell, &["sh", "-c", "exit 124"], SOON).await;
        assert_eq!((own.status, own.timed_out), (124, false), "{shell:?}");
    }
}

#[tokio::test]
async fn much_output_is_cut_and_a_daemon_that_keeps_it_open_is_not_waited_for() {
    for shell in SHELLS {
        let much =
            ran(shell, &["sh", "-c", "i=0; while [ $i -lt 9000 ]; do echo line-$i; i=$((i+1)); done"], SOON).await;
        let bytes: usize = much.output.iter().map(|line| line.len() + 1).sum();
        assert!(much.cut && (65_000..70_000).contains(&bytes), "{shell:?}: {bytes} {}", much.cut);
        assert_eq!((much.status, much.output[0].as_str()), (0, "line-0"), "{shell:?}");

        let began = Instant::now();
        let daemon = ran(shell, &["sh", "-c", "echo started; sleep 15 & exit 0"], SOON).await;
        assert_eq!((daemon.status, daemon.output), (0, vec!["started".to_owned()]), "{shell:?}");
        assert!(began.elapsed() < Duration::from_secs(14), "{shell:?}");
    }
}
