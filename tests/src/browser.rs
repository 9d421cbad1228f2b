//! A real Chromium without a screen, driven over its DevTools protocol.
//!
//! The protocol goes through two pipes (`--remote-debugging-pipe`), each message of it JSON with a NUL at its end: so there is
//! no port to find and no WebSocket to speak. Waiting is for what the browser says or for what the page becomes.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, Write as _, pipe};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::failure::Failure;
use crate::left_out::left_out;
use crate::process::{PATIENCE, Program};

/// Names under which systems have it.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// One page in a browser of its own; both end with the value.
pub struct Browser {
    program: Program,
    _profile: TempDir,
    orders: PipeWriter,
    answers: Receiver<Value>,
    /// What the page's session is called.
    session: String,
    last_id: u64,
    /// What it said that was not waited for yet.
    events: Vec<Value>,
}

impl Browser {
    /// A browser with an empty page; `None`, and said so, where none is installed.
    ///
    /// # Errors
    /// It does not start.
    #[track_caller]
    pub fn start() -> Result<Option<Self>, Failure> {
        let Some(chromium) = find() else {
            left_out(
                "what a browser makes of the page: Chromium is not installed (Debian's package chromium)",
            );
            return Ok(None);
        };
        let profile = tempfile::Builder::new().prefix("moorline-browser-").tempdir()?;
        let (orders_end, orders) = pipe()?;
        let (answers, answers_end) = pipe()?;
        let mut command = Command::new("sh");
        command
            .arg("-c")
            // It reads orders from descriptor 3 and answers on 4.
            .arg("exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >&2")
            .arg(chromium)
            .args([
                "--headless=new",
                "--remote-debugging-pipe",
                "--no-first-run",
                "--disable-gpu",
                "--hide-scrollbars",
            ])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--disable-crash-reporter", "--no-default-browser-check"])
            .arg("--no-proxy-server")
            // Its sandbox needs what neither root nor a container may.
            .arg("--no-sandbox")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("HOME", profile.path());
        let program = Program::start_between(&mut command, orders_end, answers_end)?;
        drop(command);
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || read(answers, &sender));
        let mut browser = Self {
            program,
            _profile: profile,
            orders,
            answers: receiver,
            session: String::new(),
            last_id: 0,
            events: Vec::new(),
        };
        browser.attach()?;
        Ok(Some(browser))
    }

    fn attach(&mut self) -> Result<(), Failure> {
        let target = self.order("Target.createTarget", json!({"url": "about:blank"}))?;
        let attached =
            self.order("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}))?;
        self.session = attached["sessionId"].as_str().unwrap_or_default().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.order(&format!("{domain}.enable"), json!({}))?;
        }
        self.size(1280, 900)
    }

    /// Opens a page and waits until it is loaded.
    ///
    /// # Errors
    /// It is not.
    #[track_caller]
    pub fn open(&mut self, url: &str) -> Result<(), Failure> {
        self.forget("Page.loadEventFired");
        let answer = self.order("Page.navigate", json!({"url": url}))?;
        if let Some(error) = answer["errorText"].as_str() {
            return Err(Failure::new(format!("{url}: {error}")));
        }
        self.loaded()
    }

    /// Waits until a page is loaded since the last time that this was waited for.
    ///
    /// # Errors
    /// None is.
    #[track_caller]
    pub fn loaded(&mut self) -> Result<(), Failure> {
        self.event("Page.loadEventFired").map(drop)
    }

    /// What an expression is in the page; promises are waited for.
    ///
    /// # Errors
    /// It throws.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Result<Value, Failure> {
        let answer = self.order(
            "Runtime.evaluate",
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true}),
        )?;
        match answer["exceptionDetails"].as_object() {
            Some(details) => Err(Failure::new(format!("{expression}: {details:?}"))),
            None => Ok(answer["result"]["value"].clone()),
        }
    }

    /// Waits until an expression is true, which is asked anew each time that something in the page changes.
    ///
    /// # Errors
    /// It does not become so in time.
    #[track_caller]
    pub fn wait_until(&mut self, expression: &str) -> Result<(), Failure> {
        let patience = PATIENCE.as_millis();
        let became = self.value(&format!(
            "new Promise((done) => {{
                const look = () => {{ if ({expression}) {{ watch.disconnect(); done(true); }} }};
                const watch = new MutationObserver(look);
                watch.observe(document, {{ subtree: true, childList: true, attributes: true, characterData: true }});
                setTimeout(() => done(false), {patience});
                look();
            }})"
        ))?;
        if became == true {
            return Ok(());
        }
        let text = self.value("document.body.innerText")?;
        Err(Failure::new(format!(
            "{expression} does not become true; the page says:\n{}",
            text.as_str().unwrap_or("")
        )))
    }

    /// The text that a person sees.
    ///
    /// # Errors
    /// There is none.
    #[track_caller]
    pub fn text(&mut self) -> Result<String, Failure> {
        Ok(self.value("document.body.innerText")?.as_str().unwrap_or_default().to_owned())
    }

    /// Clicks what a selector names.
    ///
    /// # Errors
    /// There is no such thing.
    #[track_caller]
    pub fn click(&mut self, selector: &str) -> Result<(), Failure> {
        self.value(&format!("document.querySelector({}).click()", json!(selector))).map(drop)
    }

    /// Types text into what has the focus.
    ///
    /// # Errors
    /// The browser is gone.
    #[track_caller]
    pub fn type_text(&mut self, text: &str) -> Result<(), Failure> {
        self.order("Input.insertText", json!({"text": text})).map(drop)
    }

    /// Presses a key, by its names in UI Events (`key`, `code`) and its number.
    ///
    /// # Errors
    /// The browser is gone.
    #[track_caller]
    pub fn press(&mut self, key: &str, code: &str, number: u32) -> Result<(), Failure> {
        let text = match key {
            "Enter" => "\r",
            key if key.chars().count() == 1 => key,
            _ => "",
        };
        let mut event = json!({"key": key, "code": code, "windowsVirtualKeyCode": number, "text": text});
        for kind in ["keyDown", "keyUp"] {
            event["type"] = kind.into();
            self.order("Input.dispatchKeyEvent", event.clone())?;
            event["text"] = "".into();
        }
        Ok(())
    }

    /// Gives the page a size, as of a window or of a phone.
    ///
    /// # Errors
    /// The browser is gone.
    #[track_caller]
    pub fn size(&mut self, width: u32, height: u32) -> Result<(), Failure> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.order("Emulation.setDeviceMetricsOverride", size).map(drop)
    }

    /// Has the page believe that its reader prefers `dark` or `light`.
    ///
    /// # Errors
    /// The browser is gone.
    #[track_caller]
    pub fn scheme(&mut self, scheme: &str) -> Result<(), Failure> {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.order("Emulation.setEmulatedMedia", json!({"features": features})).map(drop)
    }

    /// Forbids or allows scripts to pages that are opened from now on.
    ///
    /// # Errors
    /// The browser is gone.
    #[track_caller]
    pub fn scripts(&mut self, allowed: bool) -> Result<(), Failure> {
        self.order("Emulation.setScriptExecutionDisabled", json!({"value": !allowed})).map(drop)
    }

    /// Takes a picture of the window to `target/screenshots/NAME.png`, and returns where it is.
    ///
    /// # Errors
    /// It cannot be written.
    #[track_caller]
    pub fn picture(&mut self, name: &str) -> Result<PathBuf, Failure> {
        let answer = self.order("Page.captureScreenshot", json!({"format": "png"}))?;
        let base64 = answer["data"].as_str().unwrap_or_default();
        let armoured = format!("-----BEGIN PICTURE-----\n{base64}\n-----END PICTURE-----\n");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/screenshots");
        fs::create_dir_all(&folder)?;
        let file = folder.join(format!("{name}.png"));
        fs::write(&file, pem::parse(armoured)?.contents())?;
        Ok(file)
    }

    /// What the console has complained of so far: errors of scripts, of the page's policy, of what could not be loaded.
    #[must_use]
    pub fn complaints(&mut self) -> Vec<String> {
        self.gather();
        let told = self.events.iter().filter_map(|event| match event["method"].as_str()? {
            "Log.entryAdded" => Some(event["params"]["entry"]["text"].to_string()),
            "Runtime.exceptionThrown" => Some(event["params"]["exceptionDetails"].to_string()),
            "Runtime.consoleAPICalled" => Some(event["params"]["args"].to_string()),
            _ => None,
        });
        told.collect()
    }

    fn gather(&mut self) {
        self.events.extend(self.answers.try_iter());
    }

    fn forget(&mut self, method: &str) {
        self.gather();
        self.events.retain(|event| event["method"] != method);
    }

    #[track_caller]
    fn order(&mut self, method: &str, parameters: impl Into<Value>) -> Result<Value, Failure> {
        self.last_id += 1;
        let id = self.last_id;
        let mut order = json!({"id": id, "method": method, "params": parameters.into()});
        if !self.session.is_empty() {
            order["sessionId"] = self.session.as_str().into();
        }
        let mut bytes = order.to_string().into_bytes();
        bytes.push(0);
        self.orders.write_all(&bytes)?;
        let mut answer = self.find(method, |said| said["id"] == id)?;
        match answer["error"].as_object() {
            Some(error) => Err(Failure::new(format!("{method}: {error:?}"))),
            None => Ok(answer["result"].take()),
        }
    }

    #[track_caller]
    fn event(&mut self, method: &str) -> Result<Value, Failure> {
        self.find(method, |said| said["method"] == method)
    }

    /// The first of what it said that is wanted.
    #[track_caller]
    fn find(&mut self, what: &str, is_wanted: impl Fn(&Value) -> bool) -> Result<Value, Failure> {
        let mut looked = 0;
        loop {
            if let Some(place) = self.events.iter().skip(looked).position(&is_wanted) {
                return Ok(self.events.remove(looked + place));
            }
            looked = self.events.len();
            // What it waits for in the page has its own end before this.
            match self.answers.recv_timeout(PATIENCE * 2) {
                Ok(said) => self.events.push(said),
                Err(error) => {
                    return Err(Failure::new(format!(
                        "no {what} from the browser: {error}\n{}",
                        self.program.lines().join("\n")
                    )));
                }
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // With its main process its others end too; their files are in a folder of ours.
        let _ = self.program.signal(Signal::KILL);
        let _ = self.program.wait_exit(PATIENCE);
    }
}

fn find() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let mut places = env::split_paths(&path).flat_map(|folder| NAMES.map(|name| folder.join(name)));
    places.find(|place| place.is_file())
}

fn read(answers: PipeReader, sender: &mpsc::Sender<Value>) {
    for message in BufReader::new(answers).split(0).map_while(Result::ok) {
        let Ok(message) = serde_json::from_slice(&message) else { continue };
        if sender.send(message).is_err() {
            return;
        }
    }
}
