//! The admin socket and the state directory: what the file says, else what the service manager offers.

use std::path::{Path, PathBuf};

use super::super::Admin;
use super::super::file;
use super::super::units::PathOrOff;
use super::Resolver;

impl Resolver<'_> {
    pub(super) fn admin(&mut self, file: &file::Admin, offered: Option<&Path>) -> Admin {
        let socket = match &file.socket {
            Some(PathOrOff(socket)) => socket.clone(),
            None => offered.map(Path::to_owned),
        };
        let group = file.group.as_deref().and_then(|name| {
            let by_number = name.parse().ok();
            let id = by_number.or_else(|| uzers::get_group_by_name(name).map(|group| group.gid()));
            if id.is_none() {
                self.problems
                    .add("admin.group", format!("there is no group `{name}` on this machine"));
            }
            id
        });
        self.effective.admin =
            file::Admin { socket: Some(PathOrOff(socket.clone())), group: file.group.clone() };
        Admin { socket, group }
    }

    pub(super) fn state_dir(
        &mut self,
        file: Option<&Path>,
        offered: Option<&Path>,
    ) -> Option<PathBuf> {
        if file.is_some_and(|dir| !dir.is_absolute()) {
            self.problems.add("state_dir", "expected an absolute path");
        }
        let dir = file.or(offered).map(Path::to_owned);
        self.effective.state_dir.clone_from(&dir);
        dir
    }
}
