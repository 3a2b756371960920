//! Which of a host's questions are for the password.
//!
//! Invariant: fails closed. A question is answered only where each word of it is known and one of them means a password: the
//! questions for codes, tokens and PINs come in more forms than anybody can list, and so do those for a new password.

/// How PAM, which asks for most servers, and its translations call a password.
const NAMES: &[&str] = &[
    "password",
    "passwort",
    "kennwort",
    "wachtwoord",
    "adgangskode",
    "lösenord",
    "passord",
    "salasana",
    "parool",
    "mot de passe",
    "contraseña",
    "contrasenya",
    "pasahitza",
    "palavra-passe",
    "senha",
    "parola",
    "parolă",
    "contrasigno",
    "pasvorto",
    "heslo",
    "hasło",
    "jelszó",
    "lozinka",
    "лозинка",
    "парола",
    "пароль",
    "şifrə",
    "sandi",
    "mật khẩu",
    "ססמה",
    "كلمة السر",
    "パスワード",
    "암호",
    "密码",
    "密碼",
];

/// Words beside it that change nothing.
const BESIDE: &[&str] = &[
    "enter", "please", "type", "your", "the", "for", "in", "to", "log", "login", "account", "user", "unix", "ldap",
    "kerberos", "domain", "windows", "ssh",
];

/// Words by which a text is about something that is typed once.
const ONCE: &[&str] = &[
    "otp",
    "totp",
    "hotp",
    "oath",
    "passcode",
    "pin",
    "code",
    "token",
    "authenticator",
    "factor",
    "2fa",
    "mfa",
    "yubikey",
];

/// Whether a question that is answered without echo is for the password of `user`, after what the host said with it.
pub(super) fn asks_for_password(prompt: &str, said: &str, user: &str) -> bool {
    let prompt = prompt.trim_end();
    // Before its question PAM's messages stand in the prompt, a line each.
    let (before, question) = prompt.rsplit_once('\n').unwrap_or(("", prompt));
    if is_once(before) || is_once(said) {
        return false;
    }
    let (question, user) = (question.to_lowercase(), user.to_lowercase());
    let mut question = question.trim_matches(|c: char| c.is_whitespace() || matches!(c, ':' | '：' | '?' | '.'));
    if let Some((whom, rest)) = question.strip_prefix('(').and_then(|rest| rest.split_once(')'))
        && is_whom(whom, &user)
    {
        question = rest.trim_start();
    }
    if NAMES.contains(&question) {
        return true;
    }
    let mut words = question.split_whitespace().map(|word| word.trim_matches(['\'', '"', '`', ',', '(', ')', ':']));
    let named = question.split_whitespace().any(|word| NAMES.contains(&word.trim_end_matches(':')));
    named && words.all(|word| NAMES.contains(&word) || BESIDE.contains(&word) || is_whom(word, &user))
}

/// `ops`, `ops@host`, and either with a genitive.
fn is_whom(word: &str, user: &str) -> bool {
    let word = word.strip_suffix("'s").unwrap_or(word);
    word.strip_prefix(user).is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
}

fn is_once(text: &str) -> bool {
    let text = text.to_lowercase();
    text.split(|c: char| !c.is_alphanumeric()).any(|word| ONCE.contains(&word))
        || ["one-time", "one time", "onetime"].iter().any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_question_for_the_password_gets_it() {
        for prompt in [
            "Password: ",
            "Password:",
            "password",
            "(ops@web1) Password: ",
            "ops@web1's password: ",
            "ops's Password:",
            "Password for ops@EXAMPLE.NET: ",
            "LDAP Password: ",
            "UNIX password: ",
            "Enter your password: ",
            "Please enter login password for ops:",
            "Your password will expire in 3 days.\nPassword: ",
            "Passwort: ",
            "Mot de passe : ",
            "Contraseña: ",
            "Пароль: ",
            "密码：",
            "パスワード:",
            "Mật khẩu : ",
            "Jelszó: ",
            "Hasło: ",
        ] {
            assert!(asks_for_password(prompt, "", "ops"), "{prompt}");
        }
        for prompt in [
            "",
            ":",
            "Verification code: ",
            "Password & verification code: ",
            "One-time password (OATH) for `ops': ",
            "One-time Password: ",
            "OTP: ",
            "Password + OTP: ",
            "Password/Token: ",
            "Enter PASSCODE: ",
            "Passcode or option (1-3): ",
            "Enter your PIN: ",
            "PIN: ",
            "Token password: ",
            "RADIUS password: ",
            "Response: ",
            "YubiKey for `ops': ",
            "New password: ",
            "Retype new password: ",
            "Current password: ",
            "(current) UNIX password: ",
            "Password again: ",
            "Next password: ",
            "Password for root: ",
            "Password required for ops.",
            "password: hunter2\nlogin: ",
            "Enter the code of your token.\nPassword: ",
            "Enter your one-time\nPassword: ",
            "Bestätigungscode: ",
            "Einmalpasswort: ",
        ] {
            assert!(!asks_for_password(prompt, "", "ops"), "{prompt}");
        }
        assert!(asks_for_password("Password: ", "Authorised users only.", "ops"));
        assert!(!asks_for_password("Password: ", "Your token shows a new code.", "ops"));
    }
}
