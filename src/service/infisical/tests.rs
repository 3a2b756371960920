mod faults;
mod happy;
mod prove;
mod scene;
