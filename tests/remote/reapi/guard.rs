//! What stands before a server that has to be kept from others.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::servers::Server;

/// nginx with TLS before `behind`, which speaks gRPC. Only requests with a token and a header come through. The
/// certificate of the authority that signed its own is `ca.pem` in its directory.
pub fn guarded(behind: &Server) -> Server {
    let to = behind.host();
    Server::start("the Debian packages `nginx-light` and `openssl`", |dir, port| {
        certificates(dir);
        let at = dir.display();
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let config = format!(
            "{user} daemon off; worker_processes 1; pid {at}/pid; error_log {at}/log;
            events {{}}
            http {{
                access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/body;
                fastcgi_temp_path {at}/body; uwsgi_temp_path {at}/body; scgi_temp_path {at}/body;
                client_max_body_size 0;
                server {{
                    listen 127.0.0.1:{port} ssl http2;
                    ssl_certificate {at}/server.pem; ssl_certificate_key {at}/server.key;
                    location / {{
                        if ($http_authorization != \"Bearer s3cret-token\") {{ return 401; }}
                        if ($http_x_account != \"k3y-of-account\") {{ return 403; }}
                        grpc_pass grpc://{to};
                    }}
                }}
            }}"
        );
        fs::write(dir.join("nginx.conf"), config).unwrap();
        let mut command = Command::new("nginx");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").arg("-p").arg(dir);
        command.arg("-c").arg(dir.join("nginx.conf")).arg("-e").arg(dir.join("log"));
        command
    })
}

/// An authority (`ca.pem`), and the certificate of a server on this machine that it has signed.
fn certificates(dir: &Path) {
    let openssl = |args: &str| {
        let output = Command::new("openssl").args(args.split(' ')).current_dir(dir).output();
        let output = output.expect("no openssl: install the Debian package `openssl`");
        assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    openssl(&format!("req -x509 {new} -keyout ca.key -out ca.pem -subj /CN=ca"));
    fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
    openssl(&format!("req {new} -keyout server.key -out server.csr -subj /CN=server"));
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem",
    );
}
