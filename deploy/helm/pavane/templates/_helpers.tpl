{{- define "pavane.labels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Values.image.tag | default .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* What a worker's pods are known by: never changed, because a StatefulSet's selector cannot be. */}}
{{- define "pavane.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "pavane.fullname" -}}
{{- printf "%s-%s" .root.Release.Name .name | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{- define "pavane.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end }}


{{/* The environment of every process. `secret`: whose credentials. */}}
{{- define "pavane.environment" -}}
{{- $kafka := .root.Values.kafka -}}
{{- $env := dict
  "PAVANE_BUS" (printf "kafka://%s" $kafka.servers)
  "PAVANE_DEPLOYMENT" .root.Values.deployment
  "PAVANE_PARTITIONS" .root.Values.partitions
  "PAVANE_DRAIN_S" .root.Values.drainSeconds
  "PAVANE_LOG" .root.Values.log
  "PAVANE_HEALTH_PORT" 8080
  "PAVANE_KAFKA_REPLICATION" $kafka.replication
  "PAVANE_KAFKA_RETENTION_DAYS" $kafka.retentionDays
  "PAVANE_KAFKA_STATE_DIR" "/var/lib/pavane/state"
  "PAVANE_KAFKA_SESSION_MS" ($kafka.sessionMs | int64)
  "PAVANE_KAFKA_SECURITY" $kafka.security -}}
{{- with $kafka.prefix }}{{ $_ := set $env "PAVANE_KAFKA_PREFIX" . }}{{ end -}}
{{- if contains "SASL" $kafka.security }}{{ $_ := set $env "PAVANE_KAFKA_MECHANISM" $kafka.mechanism }}{{ end -}}
{{- with $kafka.tls }}{{ if .secret -}}
{{- with .ca }}{{ $_ := set $env "PAVANE_KAFKA_CA_FILE" (printf "/etc/pavane/tls/%s" .) }}{{ end -}}
{{- with .certificate }}{{ $_ := set $env "PAVANE_KAFKA_CERTIFICATE_FILE" (printf "/etc/pavane/tls/%s" .) }}{{ end -}}
{{- with .key }}{{ $_ := set $env "PAVANE_KAFKA_KEY_FILE" (printf "/etc/pavane/tls/%s" .) }}{{ end -}}
{{- end }}{{ end -}}
{{- with .root.Values.tracing.endpoint }}{{ $_ := set $env "OTEL_EXPORTER_OTLP_ENDPOINT" . }}{{ end -}}
{{- range $name, $value := merge (dict) .root.Values.environment .root.Values.tracing.environment $env }}
- name: {{ $name }}
  {{- /* Helm reads every number as a float, and would write 2000000 as 2e+06 */}}
  value: {{ (and (kindIs "float64" $value) (eq (floor $value) $value)) | ternary (int64 $value) $value | toString | quote }}
{{- end }}
{{- if contains "SASL" $kafka.security }}
- name: PAVANE_KAFKA_USERNAME
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: {{ $kafka.credentials.username }}}}
- name: PAVANE_KAFKA_PASSWORD_FILE
  value: /etc/pavane/credentials/{{ $kafka.credentials.password }}
{{- end }}
{{- end }}

{{- define "pavane.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: state, mountPath: /var/lib/pavane/state}
{{- if contains "SASL" .root.Values.kafka.security }}
- {name: credentials, mountPath: /etc/pavane/credentials, readOnly: true}
{{- end }}
{{- if .root.Values.kafka.tls.secret }}
- {name: tls, mountPath: /etc/pavane/tls, readOnly: true}
{{- end }}
{{- end }}

{{- define "pavane.volumes" -}}
- {name: tmp, emptyDir: {sizeLimit: 64Mi}}
- {name: state, emptyDir: {}}
{{- if contains "SASL" .root.Values.kafka.security }}
- name: credentials
  secret:
    secretName: {{ .secret }}
    items: [{key: {{ .root.Values.kafka.credentials.password }}, path: {{ .root.Values.kafka.credentials.password }}}]
{{- end }}
{{- with .root.Values.kafka.tls.secret }}
- {name: tls, secret: {secretName: {{ . }}}}
{{- end }}
{{- end }}

{{- define "pavane.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "pavane.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
