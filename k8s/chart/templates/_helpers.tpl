{{- define "vqd.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Before every object's name. 40 characters leave room for what is put behind it. */}}
{{- define "vqd.fullname" -}}
{{- $name := include "vqd.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What the pods of this release are selected by. */}}
{{- define "vqd.selector" -}}
app.kubernetes.io/name: {{ include "vqd.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of an object that several components need. */}}
{{- define "vqd.labels" -}}
{{ include "vqd.selector" . }}
app.kubernetes.io/part-of: vqd
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Egress and ingress rules name the two components that use Redis. */}}
{{- define "vqd.callers" -}}
matchLabels:
  app.kubernetes.io/instance: {{ .Release.Name }}
matchExpressions:
  - {key: app.kubernetes.io/name, operator: In, values: [{{ include "vqd.name" . }}]}
  - {key: app.kubernetes.io/component, operator: In, values: [gateway, inference]}
{{- end }}

{{/* (root, which): an image by its digest, where there is one, or else by its tag. */}}
{{- define "vqd.image" -}}
{{- $image := index .root.Values.images .which }}
{{- $name := printf "%s/%s" (default $image.registry .root.Values.images.registry) $image.repository }}
{{- if $image.digest }}
{{- printf "%s@%s" $name $image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .root.Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{/* (root, which): the first lines of a container. */}}
{{- define "vqd.container" -}}
name: {{ .which }}
image: {{ include "vqd.image" . }}
{{- with .root.Values.images.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* (root, component): what every pod says alike. */}}
{{- define "vqd.pod" -}}
serviceAccountName: {{ include "vqd.fullname" .root }}-{{ .component }}
automountServiceAccountToken: false
# Without this, a Service that somebody names "vqd" would set VQD_PORT to an address.
enableServiceLinks: false
terminationGracePeriodSeconds: 30
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (index .root.Values .component).affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  {{- if ne .component "gateway" }}
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
topologySpreadConstraints:
  {{- $keys := eq .component "redis" | ternary (list "kubernetes.io/hostname") (list "kubernetes.io/hostname" "topology.kubernetes.io/zone") }}
  {{- range $key := $keys }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "vqd.selector" $.root | nindent 8 }}
        app.kubernetes.io/component: {{ $.component }}
  {{- end }}
{{- end }}

{{/* Where gateway and worker find their settings; the Secret's address, if it has one, wins. */}}
{{- define "vqd.environment" -}}
envFrom:
  - configMapRef:
      name: {{ include "vqd.fullname" . }}-settings
  {{- if include "vqd.bucket" . }}
  - secretRef:
      name: {{ default (printf "%s-s3" (include "vqd.fullname" .)) .Values.secrets.s3 }}
      optional: true
  {{- end }}
env:
  - name: VQD_REDIS_URL
    valueFrom:
      secretKeyRef:
        name: {{ include "vqd.passwords" . }}
        key: VQD_REDIS_URL
        optional: true
{{- end }}

{{- define "vqd.passwords" -}}
{{- default (printf "%s-secrets" (include "vqd.fullname" .)) .Values.secrets.passwords }}
{{- end }}

{{/* Where finished pictures go; empty: they stay in Redis. */}}
{{- define "vqd.bucket" -}}
{{- (include "vqd.settings" . | fromJson).VQD_S3_BUCKET | default "" }}
{{- end }}

{{/* The settings that the templates decide, then a GPU's, then the user's. As JSON. */}}
{{- define "vqd.settings" -}}
{{- $all := dict "VQD_HOST" "0.0.0.0" "VQD_PORT" "8080" "VQD_METRICS_PORT" "9090" "VQD_WORKER_METRICS_PORT" "9100" }}
{{- $all = merge $all (dict "VQD_TRITON_URL" "127.0.0.1:8001" "VQD_REPOSITORY" "/models") }}
{{- if .Values.redis.enabled }}
{{- $_ := set $all "VQD_REDIS_URL" (printf "redis://%s-redis:6379/0" (include "vqd.fullname" .)) }}
{{- else if .Values.redis.url }}
{{- $_ := set $all "VQD_REDIS_URL" .Values.redis.url }}
{{- else if not .Values.secrets.passwords }}
{{- fail "redis.enabled is false: redis.url must name a Redis, or secrets.passwords a Secret with VQD_REDIS_URL" }}
{{- end }}
{{- if .Values.gpu.enabled }}
{{- $all = merge $all .Values.gpu.settings }}
{{- end }}
{{- merge $all .Values.settings | toJson }}
{{- end }}
