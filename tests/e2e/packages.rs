//! The Debian packages, installed for real: dpkg runs their scripts on a copy of this machine's own system, which is thrown
//! away. Only root can make such a copy. That test is ignored unless asked for: `tests/run` asks when the packages are made.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use moorline_testbed::deb::Deb;
use moorline_testbed::failure::Failure;
use moorline_testbed::left_out::left_out;
use moorline_testbed::programs::program;
use tempfile::TempDir;

/// The folder of a crate, and the programs in its package.
const PACKAGES: [(&str, &[&str]); 3] = [
    ("agent", &["moorline-agent"]),
    ("server", &["moorline-server", "moorlinectl"]),
    ("certs", &["moorline-certs"]),
];

#[test]
#[ignore = "needs cargo-deb, which packaging/deb installs"]
fn packages_are_installed_upgraded_and_purged_cleanly() -> Result<(), Failure> {
    let cargo_deb = cargo_deb().ok_or_else(|| Failure::new("no cargo-deb yet: packaging/deb"))?;
    let packages = Packages::build(&cargo_deb)?;
    let Some(machine) = Machine::new(&packages)? else { return Ok(()) };

    machine.install("0.1.0")?;
    assert_eq!(machine.ask("stat -c '%a %U %G' /etc/moorline")?, "750 root moorline");
    assert_eq!(
        machine.ask("stat -c '%a %U %G' /var/lib/moorline-agent")?,
        "700 moorline-agent moorline-agent"
    );
    assert_eq!(machine.ask("id -nG moorline-agent")?, "moorline-agent dialout moorline");
    assert_eq!(machine.ask("id -nG moorline-server")?, "moorline-server moorline");
    assert_eq!(machine.enabled()?, "moorline-agent.service moorline-server.service moorline-server.socket");
    for name in PACKAGES.iter().flat_map(|(_, programs)| *programs) {
        assert!(machine.ask(&format!("{name} --version"))?.starts_with(name), "{name}");
    }

    machine.ask("echo '# ours' >>/etc/moorline/server.toml; echo '# ours' >/etc/moorline/agent.toml")?;
    machine.ask("echo secret >/etc/moorline/device.key; mkdir /var/lib/moorline-server")?;
    machine.ask("systemctl --quiet disable moorline-server.socket moorline-server")?;
    machine.install("0.2.0")?;
    assert_eq!(
        machine.ask("tail -qn1 /etc/moorline/server.toml /etc/moorline/agent.toml")?,
        "# ours\n# ours"
    );
    assert_eq!(machine.ask("dpkg-query -W -f '${Version}' moorline-server")?, "0.2.0");
    assert_eq!(machine.enabled()?, "moorline-agent.service", "an upgrade enabled what was disabled");

    machine.ask("dpkg --purge moorline-agent moorline-server moorline-certs")?;
    // Not the packages', and irreplaceable.
    assert_eq!(machine.ask("ls /etc/moorline; cat /etc/moorline/device.key")?, "device.key\nsecret");
    machine.ask("rm -r /etc/moorline")?;
    assert_eq!(machine.traces()?, "", "left behind");
    Ok(())
}

#[test]
fn changelog_is_of_this_version() -> Result<(), Failure> {
    let changelog = fs::read_to_string(source("packaging/debian/changelog"))?;
    let version = env!("CARGO_PKG_VERSION");
    assert!(changelog.starts_with(&format!("moorline ({version}-1) ")), "{changelog}");
    Ok(())
}

#[test]
fn examples_name_keys_that_the_programs_know() -> Result<(), Failure> {
    for (name, example) in [("moorline-agent", "agent.toml"), ("moorline-server", "server.toml")] {
        let text = fs::read_to_string(source("packaging/examples").join(example))?;
        // A default in the example is the key without its comment sign.
        let all: String = text.lines().map(|line| uncommented(line) + "\n").collect();
        let folder = TempDir::new()?;
        let file = folder.path().join(example);
        fs::write(&file, &all)?;
        let checked = Command::new(program(name)?).arg("check").arg("-c").arg(&file).output()?;
        let said =
            String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
        assert!(!said.contains("unknown"), "{example}: {said}");
    }
    Ok(())
}

/// What Yocto, Buildroot and OpenWrt build from. Their own worlds are not here to build it.
const RECIPES: [&str; 3] = [
    "packaging/yocto/meta-moorline/recipes-connectivity/moorline/moorline-agent.bb",
    "packaging/buildroot/package/moorline-agent/moorline-agent.mk",
    "packaging/openwrt/moorline-agent/Makefile",
];

#[test]
fn recipes_install_files_that_exist() -> Result<(), Failure> {
    for recipe in RECIPES {
        let text = fs::read_to_string(source(recipe))?;
        let roots = ["${S}/", "$(@D)/", "$(PKG_BUILD_DIR)/"];
        let words = text.split_whitespace();
        let files: Vec<_> =
            words.filter_map(|word| roots.iter().find_map(|root| word.strip_prefix(root))).collect();
        assert!(!files.is_empty(), "{recipe}");
        for file in files {
            assert!(source(file).is_file(), "{recipe} installs {file}");
        }
    }
    Ok(())
}

#[test]
fn recipes_are_of_this_version_and_these_licences() -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let [yocto, _, openwrt] = RECIPES.map(|recipe| fs::read_to_string(source(recipe)));
    let yocto = yocto?;
    assert!(yocto.contains(&format!("PV = \"{version}\"")), "{yocto}");
    assert!(openwrt?.contains(&format!("PKG_VERSION:={version}\n")));
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        let sum = said(Command::new("md5sum").arg(source(licence)))?;
        let sum = sum.split_whitespace().next().unwrap_or_default();
        assert!(yocto.contains(&format!("file://{licence};md5={sum}")), "{licence} has {sum}");
    }
    Ok(())
}

#[test]
fn procd_script_parses() -> Result<(), Failure> {
    run(Command::new("sh")
        .arg("-n")
        .arg(source("packaging/openwrt/moorline-agent/files/moorline-agent.init")))
}

/// `#key = …` as `key = …`, and a sentence as it is.
fn uncommented(line: &str) -> String {
    match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') => key.to_owned(),
        _ => line.to_owned(),
    }
}

/// The packages of the programs that are built here, a folder for each version.
struct Packages(TempDir);

impl Packages {
    fn build(cargo_deb: &Path) -> Result<Self, Failure> {
        let folder = TempDir::new()?;
        let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
        // Where cargo-deb looks for a triple's programs.
        let programs = folder.path().join("built").join(&triple).join("release");
        fs::create_dir_all(&programs)?;
        for name in PACKAGES.iter().flat_map(|(_, programs)| *programs) {
            run(Command::new("strip").arg("-o").arg(programs.join(name)).arg(program(name)?))?;
        }
        let first = folder.path().join("0.1.0");
        let next = folder.path().join("0.2.0");
        for (package, _) in PACKAGES {
            let mut command = Command::new(cargo_deb);
            command.args([
                "deb",
                "--quiet",
                "--no-build",
                "--no-strip",
                "--locked",
                "--fast",
                "--target",
                &triple,
            ]);
            command.args(["--deb-version", "0.1.0", "--manifest-path"]);
            command.arg(source(package).join("Cargo.toml"));
            let deb = first.join(format!("{package}.deb"));
            fs::create_dir_all(&first)?;
            command.arg("--output").arg(&deb).env("CARGO_TARGET_DIR", folder.path().join("built"));
            run(&mut command)?;
            fs::create_dir_all(&next)?;
            renew(&deb, &next.join(format!("{package}.deb")))?;
        }
        Ok(Self(folder))
    }
}

/// Makes the next version of a package, whose configuration is another.
fn renew(deb: &Path, next: &Path) -> Result<(), Failure> {
    let unpacked = Deb::unpack(deb)?;
    unpacked.set_version("0.2.0")?;
    let configuration = unpacked.root().join("etc/moorline/server.toml");
    if configuration.exists() {
        fs::write(&configuration, fs::read_to_string(&configuration)? + "# theirs\n")?;
    }
    unpacked.build(next)
}

/// This machine's system as it is, in a mount namespace where what is written goes to memory. systemd does not run in it.
struct Machine {
    namespace: Child,
    folder: TempDir,
}

impl Machine {
    /// Nothing, and a word about it, where no such machine can be made.
    fn new(packages: &Packages) -> Result<Option<Self>, Failure> {
        let folder = TempDir::new()?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-ec", MACHINE, "sh"]);
        command.arg(folder.path()).arg(packages.0.path());
        let mut namespace = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut said = String::new();
        if let Some(output) = namespace.stdout.take() {
            BufReader::new(output).read_line(&mut said)?;
        }
        let machine = Self { namespace, folder };
        if said.trim() == "ready" {
            return Ok(Some(machine));
        }
        left_out("installing the packages: this user may not mount an overlay of the root folder");
        Ok(None)
    }

    fn install(&self, version: &str) -> Result<(), Failure> {
        self.ask(&format!("dpkg --force-confdef --force-confold --install /mnt/{version}/*.deb </dev/null"))?;
        Ok(())
    }

    /// The units of ours that boot would start.
    fn enabled(&self) -> Result<String, Failure> {
        self.ask("cd /etc/systemd/system && ls multi-user.target.wants sockets.target.wants | grep moorline | xargs")
    }

    /// What was written under a name of ours, or left there.
    fn traces(&self) -> Result<String, Failure> {
        let upper = self.folder.path().join("upper");
        said(self.enter().arg("find").arg(upper).args(["-name", "*moorline*"]))
    }

    /// What a shell on the machine prints.
    fn ask(&self, question: &str) -> Result<String, Failure> {
        said(self.enter().arg("chroot").arg(self.folder.path().join("root")).args(["sh", "-ec", question]))
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.namespace.id().to_string()]);
        command.env("LC_ALL", "C").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its end is the end of its standard input.
        drop(self.namespace.stdin.take());
        let _ = self.namespace.wait();
    }
}

/// Arguments: a folder for the machine, the packages.
const MACHINE: &str = "
    mount -t tmpfs machine $1
    mkdir $1/upper $1/work $1/root
    mount -t overlay -o lowerdir=/,upperdir=$1/upper,workdir=$1/work machine $1/root
    mount -t tmpfs run $1/root/run
    mount -t proc proc $1/root/proc
    mount --bind /dev $1/root/dev
    mount --bind $2 $1/root/mnt
    echo ready
    exec cat >/dev/null
";

/// cargo-deb as it is installed, or as packaging/deb left it.
fn cargo_deb() -> Option<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| source("target"), PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([target.join("tools/bin")]);
    folders.map(|folder| folder.join("cargo-deb")).find(|program| program.exists())
}

fn run(command: &mut Command) -> Result<(), Failure> {
    said(command).map(drop)
}

/// A command's standard output, without the end of its last line.
fn said(command: &mut Command) -> Result<String, Failure> {
    let output = command.output()?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!("{command:?}: {}\n{error}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}
