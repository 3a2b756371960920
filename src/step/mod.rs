//! What each action looks at, does, checks and takes back.
