//! A real browser without a window, told what to do over its DevTools protocol, which comes through a pipe.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The longest that an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one empty page.
pub(crate) struct Browser {
    child: Child,
    to: Option<ChildStdin>,
    from: Receiver<Value>,
    session: Option<String>,
    last: u64,
    /// What it told by itself, in order.
    pub(crate) told: Vec<Value>,
    // Its profile goes after it.
    _profile: TempDir,
}

impl Browser {
    /// Starts Debian's `chromium`, which `tests/setup` installs, with a profile of its own and no way to phone home.
    pub(crate) fn start() -> Self {
        let profile = tempfile::Builder::new().prefix("keyswap-browser-").tempdir().unwrap();
        // It reads what it is to do from descriptor 3 and answers on 4; each message ends with a zero byte.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null", "sh", "chromium"]);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        command.args(["--disable-breakpad", "--remote-debugging-pipe"]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        command.env("HOME", profile.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("sh can be run");
        let (to, out) = (child.stdin.take(), child.stdout.take().unwrap());
        let (sender, from) = channel();
        std::thread::spawn(move || {
            let mut out = BufReader::new(out);
            loop {
                let mut message = Vec::new();
                let read = out.read_until(0, &mut message);
                if message.pop() != Some(0) || read.is_err() {
                    return;
                }
                let Ok(()) = sender.send(serde_json::from_slice(&message).unwrap()) else { return };
            }
        });
        let mut browser = Self { child, to, from, session: None, last: 0, told: Vec::new(), _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page.enable", "Network.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({}));
        }
        browser
    }

    /// Asks for something and waits for the answer.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method });
        message["params"] = params;
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let text = format!("{message}\0");
        let sent = self.to.as_mut().unwrap().write_all(text.as_bytes());
        assert!(sent.is_ok(), "the browser is gone (chromium is installed by tests/setup)");
        loop {
            let answer = self.next(method);
            if answer["id"] == self.last {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.told.push(answer);
        }
    }

    #[track_caller]
    fn next(&self, what: &str) -> Value {
        let answer = self.from.recv_timeout(PATIENCE);
        answer.unwrap_or_else(|why| panic!("{what}: {why} (chromium is installed by tests/setup)"))
    }

    /// Opens a file and waits until it is loaded. What was told before is forgotten.
    #[track_caller]
    pub(crate) fn open(&mut self, file: &Path) {
        self.told.clear();
        let opened = self.call("Page.navigate", json!({ "url": format!("file://{}", file.display()) }));
        assert!(opened.get("errorText").is_none(), "{opened}");
        while !self.told.iter().any(|told| told["method"] == "Page.loadEventFired") {
            let told = self.next("the page");
            self.told.push(told);
        }
    }

    /// The width of the screen, whether it is a phone's, and the colours that its owner prefers.
    pub(crate) fn screen(&mut self, width: u32, phone: bool, scheme: &str) {
        let scale = if phone { 2 } else { 1 };
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": scale, "mobile": phone });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// What a script comes to on the page. The page's own policy does not bind it.
    #[track_caller]
    pub(crate) fn ask(&mut self, script: &str) -> Value {
        let asked = json!({ "expression": script, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", asked);
        assert!(answer.get("exceptionDetails").is_none(), "{answer}");
        answer["result"]["value"].clone()
    }

    /// Presses a key.
    pub(crate) fn press(&mut self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// A picture of the page, at most so high, as PNG.
    pub(crate) fn picture(&mut self, highest: u32) -> Vec<u8> {
        let size = self.call("Page.getLayoutMetrics", json!({}))["cssContentSize"].clone();
        let height = size["height"].as_f64().unwrap().min(f64::from(highest));
        let clip = json!({ "x": 0, "y": 0, "width": size["width"], "height": height, "scale": 1 });
        let asked = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        decode(&self.call("Page.captureScreenshot", asked)["data"])
    }

    /// The page as it would be printed, as PDF.
    pub(crate) fn printed(&mut self) -> Vec<u8> {
        decode(&self.call("Page.printToPDF", json!({ "preferCSSPageSize": true }))["data"])
    }

    /// The addresses that were asked for, whether or not that was let through.
    pub(crate) fn asked_for(&self) -> Vec<&str> {
        let asked = self.told.iter().filter(|told| told["method"] == "Network.requestWillBeSent");
        asked.map(|told| told["params"]["request"]["url"].as_str().unwrap()).collect()
    }

    /// What the browser complains about: a policy that was broken, a file that is not there, a script that failed.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let is =
            |told: &&Value| ["Log.entryAdded", "Runtime.exceptionThrown"].iter().any(|name| told["method"] == *name);
        self.told.iter().filter(is).map(|told| told["params"].to_string()).collect()
    }
}

fn decode(data: &Value) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(data.as_str().unwrap()).unwrap()
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A browser that is closed takes its helpers with it; one that is killed may leave some behind for a moment.
        self.session = None;
        if let Some(mut to) = self.to.take() {
            let _ = to.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
            let end = Instant::now() + Duration::from_secs(10);
            while Instant::now() < end && self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
