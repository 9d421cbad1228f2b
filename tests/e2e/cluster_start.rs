//! What a server that is to share a fleet says at its start when NATS is not as it has to be.

use std::fs;

use moorline_testbed::failure::Failure;
use moorline_testbed::nats::{Doors, Nats};
use moorline_testbed::process::Program;
use moorline_testbed::rig::{Rig, ServerSetup, free_address};
use moorline_testbed::several::{PATIENCE, allowed};

#[test]
fn what_is_wrong_with_nats_is_said_at_the_start() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let rig = Rig::new()?;
    let fails = |setup: ServerSetup, why: &str| -> Result<(), Failure> {
        let mut program = Program::start(&mut setup.command()?)?;
        program.wait_for_within(why, PATIENCE)?;
        assert!(!program.wait_exit(PATIENCE)?.success());
        Ok(())
    };
    let nowhere = format!("nats://{}", free_address()?);
    fails(rig.server()?.node("a", &[nowhere]), "it is not reached")?;
    let locked = Nats::with(Doors { user: Some(("moorline", "right")), ..Doors::default() })?;
    fails(rig.server()?.node("a", &locked.urls()), "it refuses this node: look at cluster.credentials")?;
    let password = rig.folder().join("password");
    fs::write(&password, "wrong\n")?;
    let with_password = || {
        Ok::<_, Failure>(
            rig.server()?
                .node("a", &locked.urls())
                .set("cluster.user", "moorline")
                .set("cluster.password_file", password.display()),
        )
    };
    fails(with_password()?, "it refuses this node")?;
    fs::write(&password, "right\n")?;
    let server = with_password()?.start()?;
    fails(with_password()?, "there is a node \"a\" already")?;
    drop(server);
    let bare = Nats::with(Doors { without_jetstream: true, ..Doors::default() })?;
    fails(rig.server()?.node("a", &bare.urls()), "it has no JetStream: switch it on")?;
    let single = Nats::start()?;
    let wanted = rig.server()?.node("a", &single.urls()).set_number("cluster.replicas", 3);
    fails(wanted, "cluster.replicas is 3: so many NATS servers there must be")?;
    Ok(())
}

#[test]
fn fleet_of_another_version_is_left_alone() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let (rig, nats) = (Rig::new()?, Nats::start()?);
    drop(rig.server()?.node("a", &nats.urls()).start()?);
    nats.publish("$KV.moorline_fleet.meta", br#"{"version":2,"id":"00000000"}"#)?;
    let mut program = Program::start(&mut rig.server()?.node("b", &nats.urls()).command()?)?;
    program.wait_for("the fleet there is of version 2, and this moorline-server knows 1")?;
    assert!(!program.wait_exit(PATIENCE)?.success());
    Ok(())
}
