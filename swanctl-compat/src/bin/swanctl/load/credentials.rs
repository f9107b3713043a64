//! Credentials in their order: certificates and keys in files, keys on tokens, shared secrets; then what the files have no longer is unloaded.

use swanctl_compat::plan::PlannedSecret;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::{ClientError, EINVAL};

use super::report::Step;
use super::{Prepared, Session, reason, succeeded};

impl Session<'_> {
    pub(super) fn credentials(&mut self, prepared: &Prepared) -> Result<u8, ClientError> {
        if self.clear {
            self.command("clear-creds", Message::new())?;
        }
        let keys = self.names("get-keys", "keys")?;
        let loaded = self.names("get-shared", "keys")?;
        let mut kept = self.files(prepared)?;
        kept.extend(self.tokens(prepared)?);
        let mut code = 0;
        for secret in &prepared.plan.secrets {
            if !self.secret(secret)? {
                code = EINVAL;
            }
        }
        for id in keys.iter().filter(|id| !kept.contains(id)) {
            let answer = self.command("unload-key", Message::new().with("id", id.as_str()))?;
            let step = Step { command: "unload-key", name: id };
            if succeeded(&answer) {
                self.report.done(&step, "")?;
            } else {
                let why = reason(&answer);
                self.report.failed(&step, why, &format!("unloading private key '{id}' failed: {why}"));
            }
        }
        for id in prepared.plan.secrets_to_unload(&loaded) {
            let answer = self.command("unload-shared", Message::new().with("id", id.as_str()))?;
            let step = Step { command: "unload-shared", name: &id };
            if succeeded(&answer) {
                self.report.done(&step, "")?;
            } else {
                let why = reason(&answer);
                self.report.failed(&step, why, &format!("unloading shared secret '{id}' failed: {why}"));
                code = EINVAL;
            }
        }
        Ok(code)
    }

    fn secret(&mut self, secret: &PlannedSecret) -> Result<bool, ClientError> {
        let step = Step { command: "load-shared", name: &secret.name };
        let collision = secret.collision.as_ref().filter(|_| self.is_cygnet);
        if let Some(why) = secret.unreadable.as_ref().or(collision) {
            self.report.failed(&step, why, &format!("loading shared secret '{}' failed: {why}", secret.name));
            return Ok(false);
        }
        let answer = self.command("load-shared", secret.message.clone())?;
        if succeeded(&answer) {
            self.report.done(&step, &format!("loaded {} secret '{}'", secret.kind, secret.name))?;
            return Ok(true);
        }
        let why = reason(&answer);
        self.report.failed(&step, why, &format!("loading shared secret failed: {why}"));
        Ok(false)
    }
}
