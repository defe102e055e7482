"""`[tls]` → how a pod gets its certificate, and how Ray is told to use it. Pure.

An init container signs a certificate for the pod's own addresses with the authority's key. Ray's container
sees its own key and the authority's certificate, and never the authority's key: who breaks into a job can
make no certificates. Ray asks both sides of every connection for one.
"""

from asclepius_ray.launch.cluster.network_sections import TlsSection
from asclepius_ray.launch.cluster.preparing import Preparation

FOLDER, AUTHORITY_FOLDER = "/run/ray-tls", "/etc/ray-authority"
USE_VARIABLE = "RAY_USE_TLS"
CERTIFICATE_VARIABLE, KEY_VARIABLE = "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY"
AUTHORITY_VARIABLE = "RAY_TLS_CA_CERT"
FILES = {
    CERTIFICATE_VARIABLE: f"{FOLDER}/tls.crt",
    KEY_VARIABLE: f"{FOLDER}/tls.key",
    AUTHORITY_VARIABLE: f"{FOLDER}/ca.crt",
}
SCRIPT = """\
set -eu
umask 077
cd "$TLS_FOLDER"
cat > request.cnf <<END
[req]
prompt = no
distinguished_name = name
[name]
CN = ray
[node]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:$POD_IP${FQ_RAY_IP:+, DNS:$FQ_RAY_IP}
END
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \\
  -config request.cnf -keyout tls.key -out tls.csr
openssl x509 -req -in tls.csr -CA "$AUTHORITY_FOLDER/ca.crt" -CAkey "$AUTHORITY_FOLDER/ca.key" \\
  -set_serial "0x$(openssl rand -hex 16)" -days "$TLS_DAYS" -sha256 \\
  -extfile request.cnf -extensions node -out tls.crt
cp "$AUTHORITY_FOLDER/ca.crt" ca.crt
rm tls.csr request.cnf
"""
"""FQ_RAY_IP is the name of the head's service, which KubeRay gives to init containers."""


def certificate(tls: TlsSection) -> Preparation:
    """The step before Ray's start that makes the pod's certificate."""
    return Preparation(
        name="ray-tls",
        folder=FOLDER,
        command=("/bin/sh", "-c", SCRIPT),
        variables={USE_VARIABLE: "1", **FILES},
        own_variables=(
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "TLS_FOLDER", "value": FOLDER},
            {"name": "AUTHORITY_FOLDER", "value": AUTHORITY_FOLDER},
            {"name": "TLS_DAYS", "value": str(tls.days)},
        ),
        secret=tls.secret,
        secret_folder=AUTHORITY_FOLDER,
        megabytes=1,
    )
