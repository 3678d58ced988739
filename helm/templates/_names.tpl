{{- define "meshwhy.name" -}}
{{- if contains "meshwhy" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-meshwhy" (.Release.Name | trunc 42 | trimSuffix "-") }}{{ end -}}
{{- end }}

{{- define "meshwhy.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "meshwhy.name" .) }}
{{- end }}

{{- /* Cluster-wide names carry the namespace, so that two releases do not meet. */ -}}
{{- define "meshwhy.clusterName" -}}
{{ printf "%s-%s" (include "meshwhy.name" .) .Release.Namespace }}
{{- end }}

{{- define "meshwhy.selector" -}}
app.kubernetes.io/name: meshwhy
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "meshwhy.labels" -}}
{{ include "meshwhy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "meshwhy.slackSecret" -}}
{{ .Values.slack.existingSecret | default (printf "%s-slack" (include "meshwhy.name" .)) }}
{{- end }}

{{- define "meshwhy.redisSecret" -}}
{{ .Values.redis.existingSecret | default (printf "%s-redis" (include "meshwhy.name" .)) }}
{{- end }}

{{- define "meshwhy.hasRedis" -}}
{{- if or .Values.redis.existingSecret .Values.redis.url }}yes{{ end -}}
{{- end }}

{{- /* The one key beside SLACK_BOT_TOKEN that the mode asks for. */ -}}
{{- define "meshwhy.slackKey" -}}
{{- if eq .Values.slack.mode "socket" }}SLACK_APP_TOKEN{{ else }}SLACK_SIGNING_SECRET{{ end -}}
{{- end }}

{{- /* The bot's config file: the values' own words, with each kubeconfigSecret as the path where it is mounted. */ -}}
{{- define "meshwhy.config" -}}
slack:
  mode: {{ .Values.slack.mode }}
  {{- with .Values.slack.teams }}
  teams: {{ toYaml . | nindent 4 }}
  {{- end }}
  bot_token: {env: SLACK_BOT_TOKEN}
  {{- if eq .Values.slack.mode "socket" }}
  app_token: {env: SLACK_APP_TOKEN}
  {{- else }}
  signing_secret: {env: SLACK_SIGNING_SECRET}
  port: 3000
  {{- end }}
{{- if include "meshwhy.hasRedis" . }}
redis:
  url: {env: REDIS_URL}
  {{- if .Values.redis.divided }}
  divided: true
  {{- end }}
{{- end }}
state_dir: /var/lib/meshwhy
health: {port: 8080}
clusters:
{{- range .Values.clusters }}
  {{- $cluster := omit . "kubeconfigSecret" }}
  {{- if and $.Values.secrets.enabled .in_cluster (not .secrets) }}{{ $_ := set $cluster "secrets" $.Values.secrets.namespaces }}{{ end }}
  {{- range $word := list "deep" "logs" }}
  {{- if and (index $.Values $word) $cluster.in_cluster (not (hasKey $cluster $word)) }}{{ $_ := set $cluster $word true }}{{ end }}
  {{- end }}
  {{- with .kubeconfigSecret }}{{ $_ := set $cluster "kubeconfig" (printf "/etc/meshwhy/kubeconfigs/%s/kubeconfig" .) }}{{ end }}
  - {{ toYaml $cluster | nindent 4 | trim }}
{{- end }}
alerts:
  {{- toYaml .Values.alerts | nindent 2 }}
{{- $alertmanager := .Values.alertmanager }}
{{- if or $alertmanager.send $alertmanager.receive }}
alertmanager:
  send: {{- toYaml $alertmanager.send | nindent 4 }}
  {{- with $alertmanager.receive }}
  receive: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- $access := .Values.access }}
{{- if $access.admins }}
access:
  {{- toYaml $access | nindent 2 }}
{{- else if or $access.responders (ne (toJson $access.viewers) "[\"everyone\"]") }}
{{- fail "access limits somebody and names no admins: set access.admins" }}
{{- end }}
{{- end }}
