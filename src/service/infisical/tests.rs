mod happy;
mod prove;
mod scene;
