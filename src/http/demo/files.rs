//! The page's files, built into the program.

/// One file.
#[derive(Debug)]
pub(super) struct File {
    /// Where it is served.
    path: &'static str,
    /// Its media type.
    pub media_type: &'static str,
    /// What it holds.
    pub bytes: &'static [u8],
}

macro_rules! files {
    ($($path:literal $media_type:literal $file:literal)*) => {
        const FILES: &[File] = &[$(
            File { path: $path, media_type: $media_type, bytes: include_bytes!(concat!("page/", $file)) },
        )*];
    };
}

files! {
    "/" "text/html; charset=utf-8" "index.html"
    "/demo" "text/html; charset=utf-8" "index.html"
    "/demo/style.css" "text/css; charset=utf-8" "style.css"
    "/demo/icon.svg" "image/svg+xml" "icon.svg"
    "/demo/main.js" "text/javascript; charset=utf-8" "main.js"
    "/demo/connection.js" "text/javascript; charset=utf-8" "connection.js"
    "/demo/calls.js" "text/javascript; charset=utf-8" "calls.js"
    "/demo/candles.js" "text/javascript; charset=utf-8" "candles.js"
    "/demo/meters.js" "text/javascript; charset=utf-8" "meters.js"
    "/demo/theme.js" "text/javascript; charset=utf-8" "theme.js"
    "/demo/lightweight-charts.js" "text/javascript; charset=utf-8" "lightweight-charts/lightweight-charts.js"
    "/demo/lightweight-charts/LICENSE" "text/plain; charset=utf-8" "lightweight-charts/LICENSE"
    "/demo/lightweight-charts/NOTICE" "text/plain; charset=utf-8" "lightweight-charts/NOTICE"
}

/// The file at a path.
pub(super) fn find(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}
